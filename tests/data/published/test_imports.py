"""The engine of all imports: interrupted, repeated, damaged, packed, large."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from raysweep.config import ConfigError
from raysweep.data import imports
from raysweep.data.imports import import_published
from raysweep.data.published import workplace
from raysweep.data.published.common import ImportConfig
from raysweep.data.published.workplace import hold
from raysweep.data.records import SPLITS
from tests.data.folders import write_folder
from tests.data.published_trees import (
    files_of,
    imported,
    picture,
    save,
    stored,
    tarred,
    write_celebamask,
    write_datasetgan,
    zipped,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from raysweep.data import imports
from raysweep.data.published.common import ImportConfig

imports.ROWS_PER_GROUP, imports.ROWS_PER_FILE = 2, 4
last = int(sys.argv[3])

def report(done, total):
    if done >= last:
        os.kill(os.getpid(), signal.SIGKILL)

imports.import_published(
    Path(sys.argv[1]), Path(sys.argv[2]), ImportConfig(kind="celebamask-hq", partition="lagm"),
    report=report,
)
"""


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(imports, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(imports, "ROWS_PER_FILE", 4)


@pytest.fixture
def faces(tmp_path):
    return write_celebamask(tmp_path / "faces", [*range(9), *range(28000, 28007), 29600, 29601])


def lagm(source, target, **settings):
    return imported(source, target, kind="celebamask-hq", partition="lagm", **settings)


@pytest.mark.parametrize("last", [2, 6, 18])
def test_killed_and_repeated_gives_the_same_bytes(faces, tmp_path, small_files, last):
    """Killed within the first file, within a later one, and when all files are written."""
    lagm(faces, tmp_path / "whole")
    target = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(faces), str(target), str(last)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not target.exists()
    aside = tmp_path / ".out.partial"
    finished = {path.name.replace(".rows.json", ".parquet") for path in aside.glob("*.rows.json")}
    before = {name: (aside / name).stat().st_ino for name in finished}
    times = {name: (aside / name).stat().st_mtime_ns for name in finished}
    assert len(finished) == {2: 0, 6: 1, 18: 5}[last]
    lagm(faces, target)
    assert files_of(target) == files_of(tmp_path / "whole")
    assert not aside.exists()
    for name, inode in before.items():  # not written again
        assert (target / name).stat().st_ino == inode
        assert (target / name).stat().st_mtime_ns == times[name]


@pytest.mark.parametrize("change", ["source", "settings"])
def test_parts_of_another_import_are_not_taken_over(faces, tmp_path, small_files, change):
    def stop(work, shards, progress):
        imports.write_here(work, shards[:2], progress)
        raise KeyboardInterrupt

    config = ImportConfig(kind="celebamask-hq", partition="lagm")
    with pytest.raises(KeyboardInterrupt):
        import_published(faces, tmp_path / "out", config, report=lambda *_: None, execute=stop)
    assert list(tmp_path.glob(".out.partial/*.rows.json"))
    settings = {"merge": "face8"} if change == "settings" else {}
    if change == "source":
        save(faces / "CelebA-HQ-img" / "1.jpg", picture(1234))
    lagm(faces, tmp_path / "out", **settings)
    lagm(faces, tmp_path / "whole", **settings)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_two_imports_of_one_target_do_not_mix(faces, tmp_path):
    def second(work, shards, progress):
        with pytest.raises(ConfigError, match="another import is writing it"):
            lagm(faces, tmp_path / "out")
        imports.write_here(work, shards, progress)

    config = ImportConfig(kind="celebamask-hq", partition="lagm")
    import_published(faces, tmp_path / "out", config, report=lambda *_: None, execute=second)
    assert sum(map(len, stored(tmp_path / "out")[0].values())) == 18


def test_processes_of_an_earlier_import_are_waited_for(faces, tmp_path, monkeypatch):
    aside = tmp_path / ".out.partial"
    aside.mkdir()
    with hold(aside):
        monkeypatch.setattr(workplace, "WAIT_SECONDS", 0.2)
        with pytest.raises(ConfigError, match="processes of an earlier import still run"):
            lagm(faces, tmp_path / "out")
    aside.mkdir(exist_ok=True)
    held = hold(aside)
    monkeypatch.setattr(workplace, "WAIT_SECONDS", 60)
    threading.Timer(0.3, held.close).start()
    started = time.monotonic()
    lagm(faces, tmp_path / "out")
    assert time.monotonic() - started > 0.25


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz"])
def test_archives_give_the_same_files_as_folders(faces, tmp_path, kind):
    lagm(faces, tmp_path / "whole")
    archive = tmp_path / f"faces{kind}"
    (zipped if kind == ".zip" else tarred)(faces, archive)
    lagm(archive, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_skipped_files_are_counted_and_the_rest_is_whole(faces, tmp_path, small_files):
    for number in (3, 4, 5, 6, 7, 28001):
        path = faces / "CelebA-HQ-img" / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:100])
    outcome = lagm(faces, tmp_path / "out", on_error="skip")
    ids = stored(tmp_path / "out")[0]
    assert ids["unlabelled"] == ["00000", "00001", "00002", "00008"]  # one file has no image left
    assert len(ids["train"]) == 6
    assert outcome.info.counts == {split: len(ids.get(split, [])) for split in SPLITS}
    report = json.loads((tmp_path / "out" / "import.json").read_text())
    assert len(report["skipped"]) == len(outcome.skipped) == 6
    assert any(line.startswith("CelebA-HQ-img/28001.jpg: unread") for line in report["skipped"])
    assert str(tmp_path) not in (tmp_path / "out" / "import.json").read_text()


def test_nothing_is_made_if_no_image_can_be_used(tmp_path):
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", picture(number)).write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no image of it can be used\n3 files cannot be used"):
        imported(tmp_path / "photos", tmp_path / "out", kind="images", on_error="skip")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_names_that_differ_in_case_are_refused_or_the_later_skipped(tmp_path):
    for name in ("a.png", "A.png", "b.png", "b.jpg"):
        save(tmp_path / "photos" / name, picture(0))
    with pytest.raises(
        ConfigError, match=r"2 files cannot be used:\n.*a\.png: A\.png has the same"
    ):
        imported(tmp_path / "photos", tmp_path / "out", kind="images")
    outcome = imported(tmp_path / "photos", tmp_path / "out", kind="images", on_error="skip")
    assert stored(tmp_path / "out")[0]["unlabelled"] == ["A", "b"]
    assert len(outcome.skipped) == 2


def test_decoding_finds_what_the_ends_do_not_show(tmp_path):
    path = save(tmp_path / "photos" / "a.jpg", picture(0, width=64, height=64))
    data = bytearray(path.read_bytes())
    table = data.index(b"\xff\xc4") + 5  # counts of a Huffman table
    data[table : table + 16] = b"\xff" * 16
    path.write_bytes(data)
    imported(tmp_path / "photos", tmp_path / "ends", kind="images")
    with pytest.raises(ConfigError, match=r"a\.jpg: unreadable or truncated"):
        imported(tmp_path / "photos", tmp_path / "out", kind="images", verify="decode")


def test_a_folder_is_stored_as_it_is_and_its_pixels_are_counted(tmp_path):
    folder = write_folder(tmp_path / "parts")
    outcome = imported(folder, tmp_path / "out", kind="folder")
    _, images, masks, _ = stored(tmp_path / "out")
    assert images["0"] == (folder / "images" / "0.png").read_bytes()
    every = np.concatenate([mask.reshape(-1) for mask in masks.values()])
    for index, name in enumerate(outcome.info.classes):
        assert outcome.shares[name] == pytest.approx(float(np.mean(every == index)))


def test_refuses_a_folder_in_an_archive_merges_without_labels_and_unknown_kinds(tmp_path):
    folder = write_folder(tmp_path / "parts")
    archive = zipped(folder, tmp_path / "parts.zip")
    for source, settings, message in (
        (archive, {"kind": "folder"}, "must be in a folder"),
        (folder, {"kind": "images", "merge": "face8"}, "parts has no labels"),
        (folder, {"kind": "imagenet"}, "kind = 'imagenet': allowed are celebamask-hq"),
    ):
        with pytest.raises(ConfigError, match=message):
            imported(source, tmp_path / "out", **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "parts.zip"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"take": {"train": 0}}, r"train=0; take 1 or more"),
        ({"take": {"validate": 3}}, r"take\.validate"),
        ({"seed": -1}, r"seed = -1"),
        ({"on_error": "ignore"}, r"on_error = 'ignore'"),
        ({"verify": "all"}, r"verify = 'all'"),
        ({"partition": "mine"}, r"partition = 'mine'"),
        ({"categry": "face"}, r"categry"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, message):
    from raysweep.config import from_dict

    with pytest.raises(ConfigError, match=message):
        from_dict(ImportConfig, {"kind": "images"} | settings)


def test_the_working_directory_is_gone_after_a_refusal(tmp_path, small_files):
    tree = write_datasetgan(tmp_path / "annotation", train=9)
    (tree / "testing_data" / "face_34_class" / "image_mask9.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match=r"image_mask9\.npy"):
        imported(tree, tmp_path / "out", kind="datasetgan", category="face")
    assert [path.name for path in tmp_path.iterdir()] == ["annotation"]


def _many(folder, count):
    """Write one image under many names; a link takes no space."""
    first = save(folder / "000" / "000000.png", picture(0, width=40, height=40))
    for number in range(1, count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(exist_ok=True)
        os.link(first, place / f"{number:06d}.png")
    return first.stat().st_size


def _peak(folder, target):
    tracemalloc.start()
    try:
        imported(folder, target, kind="images")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_bytes_of_the_images(tmp_path):
    size = _many(tmp_path / "many", 3000)
    peak = _peak(tmp_path / "many", tmp_path / "out")
    assert size * 3000 > 14e6
    assert peak < 6e6 + 3000 * 2000  # two row groups, and names, places and hashes


@pytest.mark.slow
def test_20000_images_in_bounded_memory(tmp_path):
    _many(tmp_path / "many", 20_000)
    assert _peak(tmp_path / "many", tmp_path / "out") < 6e6 + 20_000 * 2000
