import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.builtin import BuiltinConfig, building, builtin_chunks, materialise, write_chunk
from raysweep.data.dataset import describe, open_dataset
from raysweep.data.imports import import_published
from raysweep.data.published.common import ImportConfig
from tests.data.folders import FULL_SPLITS, labels, picture, write_folder, write_splits

TINY = BuiltinConfig(px=8, unlabelled=5, train=4, val=2, test=3)
CCP = Path(os.environ.get("RAYSWEEP_CCP", Path(__file__).parents[3] / "shared/data/ccp"))


@pytest.fixture
def folder(tmp_path):
    write_splits(write_folder(tmp_path / "parts"), *FULL_SPLITS)
    return tmp_path / "parts"


@pytest.fixture(params=["folder", "parquet"])
def dataset(request, folder, tmp_path):
    if request.param == "folder":
        return open_dataset(str(folder), cache=tmp_path)
    import_published(
        folder, tmp_path / "shards", ImportConfig(kind="folder"), report=lambda done, total: None
    )
    return open_dataset(str(tmp_path / "shards"), cache=tmp_path)


def test_names_are_sorted_as_text(tmp_path):
    dataset = open_dataset(str(write_folder(tmp_path, labelled=20)), cache=tmp_path)
    assert dataset.names("train") == tuple(sorted(dataset.names("train")))
    everything = [n for split in ("train", "val", "test") for n in dataset.names(split)]
    assert sorted(everything) == sorted(str(index) for index in range(20))


def test_images_and_masks_are_squares_of_uint8(dataset):
    images, masks = dataset.images("train", px=9), dataset.masks("train", px=9)
    assert (images.shape, images.dtype) == ((3, 3, 9, 9), torch.uint8)
    assert (masks.shape, masks.dtype) == ((3, 9, 9), torch.uint8)
    for at, name in enumerate(dataset.names("train")):
        image = Image.fromarray(picture(int(name))).resize((9, 9), Image.Resampling.BILINEAR)
        assert (images[at].permute(1, 2, 0).numpy() == np.asarray(image)).all()
        mask = Image.fromarray(labels(int(name))).resize((9, 9), Image.Resampling.NEAREST)
        assert (masks[at].numpy() == np.asarray(mask)).all()


@pytest.mark.parametrize("whole_split_first", [False, True])
def test_names_choose_and_order_images(dataset, whole_split_first):
    if whole_split_first:
        dataset.images("train", px=6)
        dataset.masks("train", px=6)
    for read in (dataset.images, dataset.masks):
        whole = read("train", px=6)
        chosen = read("train", px=6, names=["2", "0"])
        assert (chosen == whole[[2, 0]]).all()
        assert len(read("train", px=6, names=[])) == 0


def test_a_split_is_decoded_once_per_size(dataset, folder):
    first = dataset.images("train", px=6)
    for path in (folder / "images").iterdir():
        path.unlink()
    assert dataset.images("train", px=6) is first


def test_shots_follow_ranks_then_draws(dataset):
    assert dataset.shots(3, 0) == ("1", "2", "0")
    assert dataset.shots(1, 0) == ("1",)
    assert {dataset.shots(1, draw) for draw in range(20)} == {("0",), ("1",), ("2",)}
    with pytest.raises(ConfigError, match="data.shots = 4: only 3 labelled .* in parts"):
        dataset.shots(4, 0)


def test_encoded_returns_the_files_as_they_are(dataset, folder):
    found = dataset.encoded("train", "0")
    assert found.image == (folder / "images" / "0.png").read_bytes()
    assert found.mask == (folder / "masks" / "0.png").read_bytes()
    assert dataset.encoded("unlabelled", "unlabelled/1").mask is None


def test_pretraining_sees_unlabelled_images_only(dataset):
    assert dataset.names(dataset.pretraining_split()) == ("5", "unlabelled/0", "unlabelled/1")
    assert dataset.pretraining_images(px=6) is dataset.images("unlabelled", px=6)


def test_pretraining_falls_back_to_training_images(tmp_path):
    source = str(write_folder(tmp_path, unlabelled=0))
    dataset = open_dataset(source, cache=tmp_path)
    assert dataset.pretraining_split() == "train"
    assert len(dataset.pretraining_images(px=6)) == 4


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda d: d.names("training"), "split = 'training': allowed are unlabelled, train"),
        (lambda d: d.masks("unlabelled", px=6), "split = 'unlabelled' has no masks"),
        (lambda d: d.images("val", px=6, names=["0"]), "parts has no image '0' in split val"),
        (lambda d: d.encoded("val", "0"), "parts has no image '0' in split val"),
        (lambda d: d.images("val", px=0), "px = 0"),
    ],
)
def test_refuses_what_is_not_there(dataset, call, part):
    with pytest.raises(ConfigError, match=part):
        call(dataset)


def test_a_file_damaged_after_opening_is_named(folder, tmp_path):
    dataset = open_dataset(str(folder), cache=tmp_path)
    (folder / "images" / "3.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="parts: 3: unreadable or truncated"):
        dataset.images("val", px=6)


@pytest.mark.parametrize(("make", "part"), [(True, "is not a dataset"), (False, "does not exist")])
def test_refuses_a_path_that_is_no_dataset(tmp_path, make, part):
    path = tmp_path / "empty"
    if make:
        path.mkdir()
    with pytest.raises(ConfigError) as caught:
        describe(str(path))
    message = str(caught.value)
    assert part in message
    for layout in ("face or car", "images/, masks/ and classes.json", "dataset.json"):
        assert layout in message


@pytest.mark.parametrize("domain", ["face", "car"])
def test_a_built_in_dataset_is_what_was_described(tmp_path, domain):
    info = describe(domain, builtin=TINY)
    assert not list(tmp_path.iterdir())
    dataset = open_dataset(domain, cache=tmp_path, builtin=TINY)
    assert dataset.info == info
    assert info.counts == {"unlabelled": 5, "train": 4, "val": 2, "test": 3}
    assert dataset.images("unlabelled", px=8).shape == (5, 3, 8, 8)
    assert int(dataset.masks("test", px=8).max()) < len(info.classes) == len(info.palette)
    assert dataset.shots(4, 0) == dataset.names("train")


CHANGES = {"px": 9, "unlabelled": 6, "train": 5, "val": 3, "test": 4, "seed": 1}
CHANGES |= {"difficulty": "hard", "labels": "fine"}


def contents(dataset):
    px = 16
    pictures = [dataset.images(split, px=px) for split in ("unlabelled", "train", "val", "test")]
    return [*pictures, *(dataset.masks(split, px=px) for split in ("train", "val", "test"))]


@pytest.mark.parametrize("field", BuiltinConfig.model_fields)
def test_every_setting_changes_fingerprint_and_content(tmp_path, field):
    other = TINY.model_copy(update={field: CHANGES[field]})
    assert describe("face", builtin=other).fingerprint != describe("face", builtin=TINY).fingerprint
    before = contents(open_dataset("face", cache=tmp_path, builtin=TINY))
    after = contents(open_dataset("face", cache=tmp_path, builtin=other))
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_larger_split_leaves_all_other_images_as_they_are(tmp_path):
    larger = TINY.model_copy(update={"unlabelled": 9})
    before = contents(open_dataset("face", cache=tmp_path, builtin=TINY))
    after = contents(open_dataset("face", cache=tmp_path, builtin=larger))
    assert torch.equal(before[0], after[0][:5])
    assert all(torch.equal(old, new) for old, new in zip(before[1:], after[1:], strict=True))


def test_no_image_is_in_two_splits(tmp_path):
    dataset = open_dataset("face", cache=tmp_path, builtin=TINY)
    images = torch.cat([dataset.images(split, px=8) for split in dataset.info.counts])
    assert len(images.flatten(1).unique(dim=0)) == 14


def test_labels_may_be_named_by_the_label_set(tmp_path):
    named = TINY.model_copy(update={"labels": "face12"})
    assert describe("face", builtin=named) == describe("face", builtin=TINY)
    assert len(describe("face", builtin=TINY.model_copy(update={"labels": "face8"})).classes) == 8
    with pytest.raises(ConfigError, match="data.builtin.labels = 'face12': allowed for car are"):
        describe("car", builtin=named)


def test_a_stopped_rendering_goes_on_where_it_was(tmp_path):
    first, *rest = builtin_chunks(TINY, "face")
    claim = building(TINY, "face", cache=tmp_path)
    directory = claim.__enter__()
    write_chunk(first, directory)
    claim.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    before = (directory / first.file_name).stat().st_mtime_ns
    path = materialise(TINY, "face", cache=tmp_path)
    assert (path / first.file_name).stat().st_mtime_ns == before
    assert len(list(path.glob("*.parquet"))) == 1 + len(rest)
    assert not directory.exists()


def test_refuses_to_finish_without_all_chunks(tmp_path):
    first, *_ = builtin_chunks(TINY, "face")
    claim = building(TINY, "face", cache=tmp_path)
    write_chunk(first, claim.__enter__())
    with pytest.raises(ConfigError, match="lacks train-000000.parquet; all workers must write"):
        claim.__exit__(None, None, None)
    assert not list(tmp_path.glob("*/dataset.json"))


def fingerprint_of(cache: Path) -> str:
    return open_dataset("face", cache=cache, builtin=TINY).info.fingerprint


def test_two_processes_may_render_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(fingerprint_of, [tmp_path, tmp_path], chunksize=1)
    assert found == [describe("face", builtin=TINY).fingerprint] * 2
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [f"face-{found[0]}"]


@pytest.mark.skipif(not CCP.exists(), reason=f"no photographs at {CCP}; set RAYSWEEP_CCP")
def test_reads_real_photographs(tmp_path):
    dataset = open_dataset(str(CCP), cache=tmp_path)
    assert dataset.info.counts == {"unlabelled": 1094, "train": 150, "val": 100, "test": 754}
    assert dataset.shots(2, 0) == ("0440", "0929")
    masks = dataset.masks("train", px=64)
    assert masks.shape == (150, 64, 64)
    assert int(masks.max()) == len(dataset.info.classes) - 1
