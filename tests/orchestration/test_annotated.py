"""Generated images that a person labelled: what is read and refused, what a fit makes of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from raysweep.config import ConfigError, override
from raysweep.data.dataset import describe
from raysweep.orchestration.compute import annotated
from raysweep.orchestration.compute.annotated import annotations_of
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.fitting import inputs_of
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from tests.orchestration.samples_cases import (
    GENERATED,
    GENERATIVE,
    fingerprint,
    generator_key,
    make,
    stored_generator,
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return stored_generator(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def labelled(storage, tmp_path_factory):
    """Four labelled samples of six: parts by the brightness of the image."""
    out = tmp_path_factory.mktemp("labelled") / "samples"
    make(storage, out, "--to-label", count=6)
    info = describe("face", builtin=GENERATIVE.data.builtin)
    (out / "classes.json").write_text(json.dumps({"classes": list(info.classes)}))
    for name in ("000000", "000002", "000003", "000005"):
        with Image.open(out / "images" / f"{name}.png") as image:
            labels = np.asarray(image.convert("L")) // 64
        Image.fromarray(labels).save(out / "masks" / f"{name}.png")
    return out


@pytest.fixture
def copy(labelled, tmp_path):
    return shutil.copytree(labelled, tmp_path / "copy")


def chain_with(directory, **changes):
    settings = {"annotated": str(directory), **changes}
    return chain_of(override(GENERATIVE, settings), fingerprint())


def test_a_fit_learns_from_annotated_samples(storage, labelled):
    experiment = override(GENERATIVE, {"annotated": str(labelled)})
    dataset = opened(experiment.data, storage.uri)
    store = StageStore(storage)
    run_with = Run(store, dataset, device_here(), lambda _: None)
    result = compute(experiment, run_with)
    chain = chain_of(experiment, dataset.info.fingerprint)
    assert 0 <= result["metrics"]["miou"] < 1
    record = store.record(chain.fit)
    found = annotations_of(str(labelled), generator=generator_key())
    assert record["metrics"]["labelled"] == list(found.shots(2, 0))
    inputs = inputs_of("train", experiment, chain, run_with)
    assert torch.equal(inputs, found.codes(found.shots(2, 0)))
    assert "train codes" not in record["inputs"]
    assert {store.record(s)["config"]["split"] for s in chain.projections.values()} == {
        "val",
        "test",
    }


def test_codes_and_masks_go_together(labelled):
    found = annotations_of(str(labelled), generator=generator_key())
    info = describe("face", builtin=GENERATIVE.data.builtin)
    names = ("000003", "000000")
    codes = safetensors.torch.load_file(labelled / "codes.safetensors")
    assert torch.equal(found.codes(names), torch.stack([codes[name] for name in names]))
    masks = found.masks(names, px=16, info=info)
    wanted = np.stack([np.asarray(Image.open(labelled / "masks" / f"{n}.png")) for n in names])
    assert torch.equal(masks, torch.from_numpy(wanted))
    assert found.masks(names, px=32, info=info).shape == (2, 32, 32)


def test_shots_are_nested_and_drawn(labelled):
    found = annotations_of(str(labelled), generator=generator_key())
    assert found.names == ("000000", "000002", "000003", "000005")
    orders = {draw: found.shots(4, draw) for draw in range(6)}
    assert len(set(orders.values())) > 1
    for draw, order in orders.items():
        assert sorted(order) == list(found.names)
        assert [found.shots(count, draw) for count in (1, 2, 3)] == [order[:c] for c in (1, 2, 3)]


def test_no_labelled_image_of_the_dataset_is_looked_for(labelled):
    assert list(chain_with(labelled).projections) == ["val", "test"]
    assert list(chain_with(labelled, **{"evaluate.protocol": "five_folds"}).projections) == ["test"]
    assert not chain_with(labelled, **GENERATED).projections


def test_the_key_follows_codes_masks_classes_and_draw(labelled, copy):
    key = chain_with(labelled).fit.key
    assert key != chain_of(GENERATIVE, fingerprint()).fit.key
    assert chain_with(copy).fit.key == key  # wherever it lies
    keys = {key, chain_with(copy, **{"data.draw": 1}).fit.key}
    keys.add(chain_with(copy, **{"data.shots": 3}).fit.key)
    (copy / "masks" / "000005.png").unlink()
    keys.add(chain_with(copy).fit.key)
    mask = copy / "masks" / "000000.png"
    Image.fromarray(np.asarray(Image.open(mask)) + 1).save(mask)
    keys.add(chain_with(copy).fit.key)
    codes = safetensors.torch.load_file(copy / "codes.safetensors")
    codes["000000"] = codes["000000"] + 1
    safetensors.torch.save_file(codes, copy / "codes.safetensors")
    keys.add(chain_with(copy).fit.key)
    classes = json.loads((copy / "classes.json").read_text())["classes"]
    (copy / "classes.json").write_text(json.dumps({"classes": classes[::-1]}))
    keys.add(chain_with(copy).fit.key)
    assert len(keys) == 7


def test_files_are_read_once_for_many_chains(labelled, monkeypatch):
    annotated._checked.cache_clear()
    hashed = []
    whole = annotated._hash_of
    monkeypatch.setattr(annotated, "_hash_of", lambda path: hashed.append(path) or whole(path))
    assert chain_with(labelled).fit.key == chain_with(labelled).fit.key
    assert len(hashed) == 5  # codes and four masks


def spoil(copy, what):
    if what == "no masks":
        shutil.rmtree(copy / "masks")
    elif what == "no classes":
        (copy / "classes.json").unlink()
    elif what == "no codes":
        (copy / "codes.safetensors").unlink()
    elif what == "no lineage":
        (copy / "generated.json").unlink()
    elif what == "damaged codes":
        (copy / "codes.safetensors").write_bytes(b"12")
    elif what == "foreign mask":
        shutil.copy(copy / "masks" / "000000.png", copy / "masks" / "mine.png")
    elif what == "size":
        Image.fromarray(np.zeros((8, 16), np.uint8)).save(copy / "masks" / "000000.png")
    elif what == "label":
        Image.fromarray(np.full((16, 16), 99, np.uint8)).save(copy / "masks" / "000000.png")


@pytest.mark.parametrize(
    ("what", "changes", "message"),
    [
        ("no masks", {}, "holds no mask"),
        ("no classes", {}, "classes.json is missing"),
        ("no codes", {}, "codes.safetensors is missing"),
        ("no lineage", {}, "not a directory made by jobs/generate.py"),
        ("damaged codes", {}, "cannot be read"),
        ("foreign mask", {}, "mine.png is of no generated image"),
        ("size", {}, "mask is 16 x 8, its image 16 x 16"),
        ("label", {}, "label 99 has no class"),
        ("", {"data.shots": 5}, "data.shots = 5: only 4 labelled"),
        (
            "",
            {"pretrain.gan.kimg": 0.16},
            "images of generator pretrain/.* but this representation",
        ),
        ("", {"pretrain.method": "moco"}, "takes images, not codes"),
        ("", GENERATED | {"student.plateau_patience": 2}, "student.plateau_patience = 2"),
    ],
)
def test_unusable_annotations_are_named_before_work(copy, what, changes, message):
    spoil(copy, what)
    with pytest.raises(ConfigError, match=message):
        chain_with(copy, **changes)


def test_images_without_codes_cannot_be_annotated(storage, tmp_path):
    make(storage, tmp_path / "out", count=1)
    with pytest.raises(ConfigError, match="made without codes"):
        chain_with(tmp_path / "out")


def test_other_classes_than_those_scored_are_refused(labelled):
    found = annotations_of(str(labelled), generator=generator_key())
    other = describe("car", builtin=GENERATIVE.data.builtin)
    with pytest.raises(ConfigError, match="name the same ones in the same order"):
        found.masks(found.names, px=16, info=other)


def test_a_relative_directory_means_the_same_to_every_worker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert override(GENERATIVE, {"annotated": "mine"}).annotated == str(tmp_path / "mine")
