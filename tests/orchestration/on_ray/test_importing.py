import argparse
import shutil

import numpy as np
import pytest
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data import imports
from raysweep.data.published.common import ImportConfig
from raysweep.orchestration.tasks import importing
from raysweep.orchestration.tasks.importing import run_import
from tests.data.published_trees import files_of, imported, picture, save, stored, write_celebamask


@pytest.fixture
def faces(tmp_path):
    return write_celebamask(tmp_path / "faces", [*range(9), *range(28000, 28007), 29600, 29601])


LAGM = ImportConfig(kind="celebamask-hq", partition="lagm")


def options(*arguments):
    flags = argparse.ArgumentParser()
    importing.add_flags(flags)
    return flags.parse_args([str(argument) for argument in arguments])


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_files_do_not_depend_on_the_number_of_processes(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(imports, "ROWS_PER_FILE", 4)
    run_import(faces, tmp_path / "one", LAGM, workers=1)
    run_import(faces, tmp_path / "two", LAGM, workers=2)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert len(files_of(tmp_path / "one")) > 5
    path = faces / "CelebA-HQ-img" / "28001.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"28001\.jpg: unreadable or truncated"):
        run_import(faces, tmp_path / "bad", LAGM, workers=2)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_refuses_more_processes_than_cores(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "ROWS_PER_FILE", 4)
    with pytest.raises(ConfigError, match="--workers 999: this machine has"):
        run_import(faces, tmp_path / "out", LAGM, workers=999)


def test_the_sheet_shows_images_with_their_labels(faces, tmp_path):
    run_import(faces, tmp_path / "out", LAGM, workers=1)
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    outcome = imported(faces, tmp_path / "plain", kind="celebamask-hq", partition="lagm")
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    for index, name in enumerate(outcome.info.classes):
        assert outcome.info.palette[index] in colours, name  # in the legend, if nowhere else
    skin = outcome.info.palette[1]
    assert np.all(pixels == skin, axis=-1).sum() > 128 * 128 // 10
    first = stored(tmp_path / "out")[1]["28000"]
    from raysweep.data.decoding import decode_image

    np.testing.assert_array_equal(pixels[:128, :128], decode_image(first, px=128, where="x"))


def test_unlabelled_data_have_a_sheet_too(tmp_path):
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", picture(number))
    run_import(tmp_path / "photos", tmp_path / "out", ImportConfig(kind="images"), workers=1)
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.size == (3 * 128, 128)


def test_says_the_licence_once_counts_and_shares(faces, tmp_path, capsys):
    shutil.rmtree(faces / "CelebAMask-HQ-mask-anno" / "0")
    (faces / "CelebAMask-HQ-mask-anno" / "14" / "28003_skin.png").write_bytes(b"x")
    arguments = ("celebamask-hq", faces, tmp_path / "out", "--partition", "lagm", "--on-error")
    assert importing.main(options(*arguments, "skip")) == 0
    out, errors = capsys.readouterr()
    assert errors.count("is not for commercial use") == 1
    assert "celebamask-hq: 9 unlabelled, 6 train, 0 val, 2 test; fingerprint" in out
    assert "0.000%  never occurs" in out
    assert "skipped because they cannot be used: 1" in out
    assert "28003_skin.png: unreadable or truncated" in out
    shares = [float(line.split()[1][:-1]) for line in out.splitlines() if "%" in line]
    assert len(shares) == 19
    assert sum(shares) == pytest.approx(100, abs=0.1)


def test_flags_reach_the_settings():
    given = options(
        *("datasetgan", "a", "b", "--category", "cat", "--merge", "face8", "--take", "train=16"),
        *("--take", "test=4", "--drop", "x", "--drop", "y", "--seed", "3", "--on-error", "skip"),
        *("--verify", "decode", "--partition", "lagm", "--table", "t.json"),
    )
    assert importing.config_from(given) == ImportConfig(
        kind="datasetgan",
        category="cat",
        partition="lagm",
        merge="face8",
        table="t.json",
        take={"train": 16, "test": 4},
        drop=("x", "y"),
        seed=3,
        on_error="skip",
        verify="decode",
    )
    assert importing.config_from(options("images", "a", "b")) == ImportConfig(kind="images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--take", "train"), "expected SPLIT=N"),
        (("--take", "all=3"), "take.all"),
        (("--workers", "0"), "--workers 0: 1 or more"),
    ],
)
def test_bad_flags_end_with_one_message(tmp_path, capsys, arguments, message):
    save(tmp_path / "photos" / "a.png", picture(0))
    given = options("images", tmp_path / "photos", tmp_path / "out", *arguments)
    assert importing.main(given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_import_says_that_it_goes_on(faces, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "draw_sheet", interrupt)
        given = options("celebamask-hq", faces, tmp_path / "out", "--partition", "lagm")
        assert importing.main(given) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert importing.main(given) == 0
    run_import(faces, tmp_path / "whole", LAGM, workers=1)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_progress_counts_up_to_the_total(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "ROWS_PER_GROUP", 4)
    told = []
    imports.import_published(
        faces, tmp_path / "out", LAGM, report=lambda done, total: told.append((done, total))
    )
    assert told == sorted(told)
    assert told[0] == (0, 18)
    assert told[-1] == (18, 18)
    assert len(told) == 7
