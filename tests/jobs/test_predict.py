"""Own images out: index masks and overlays of images of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from raysweep.data.dataset import open_dataset
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.prediction import find_model, predict_folder
from raysweep.presets import smoke


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """One evaluated experiment, computed in this process without Ray."""
    place = Storage(str(tmp_path_factory.mktemp("runs")))
    experiment = smoke()
    dataset = open_dataset("face", cache=place.local("data"), builtin=experiment.data.builtin)
    run = Run(StageStore(place), dataset, torch.device("cpu"), lambda progress: None)
    compute(experiment, run)
    return place


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "tall.png")
    Image.fromarray(pixels[:20, :40]).convert("L").save(folder / "grey.jpg")
    tagged = Image.fromarray(pixels[:30, :40])
    exif = tagged.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees, as phones write it
    tagged.save(folder / "phone.jpg", exif=exif)
    return folder


def keys(storage):
    experiment = smoke()
    dataset = open_dataset("face", cache=storage.local("data"), builtin=experiment.data.builtin)
    return chain_of(experiment, dataset.info.fingerprint)


def test_masks_have_the_size_of_the_image_and_hold_class_numbers(storage, photos, tmp_path):
    out = tmp_path / "out"
    assert predict_folder(find_model(storage, "best"), images=photos, out=out) == 3
    sizes = {"tall": (50, 90), "grey": (40, 20), "phone": (30, 40)}
    for name, size in sizes.items():
        mask = Image.open(out / "masks" / f"{name}.png")
        assert mask.size == size
        assert np.asarray(mask).max() < 12
        assert Image.open(out / "overlays" / f"{name}.png").size == size


@pytest.mark.parametrize(
    "form", ["fit/{0.fit.key}", "evaluate/{0.evaluate.key}", "{0.evaluate.key:.6}"]
)
def test_a_stage_or_the_beginning_of_its_key_names_the_model(storage, form):
    chain = keys(storage)
    chosen = find_model(storage, form.format(chain))
    assert chosen.model.directory.name == chain.fit.key


def test_unknown_models_and_folders_are_refused(storage, tmp_path):
    with pytest.raises(ValueError, match="no such stage or MLflow run"):
        find_model(storage, "fit/ffff")
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        find_model(Storage(str(tmp_path)), "best")
    chosen = find_model(storage, "best")
    with pytest.raises(ValueError, match="is not a folder"):
        predict_folder(chosen, images=tmp_path / "nowhere", out=tmp_path)
    with pytest.raises(ValueError, match="holds no image"):
        predict_folder(chosen, images=tmp_path, out=tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a photo")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read"):
        predict_folder(chosen, images=tmp_path, out=tmp_path)


def test_the_job_prints_where_the_masks_are(storage, photos, tmp_path, script):
    flags = ["--model", "best", "--images", photos, "--out", tmp_path / "o"]
    done = script("predict", *flags, "--storage", storage.uri)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 images" in done.stdout
