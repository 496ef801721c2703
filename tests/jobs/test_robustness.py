"""Models on shifted images: those that take images, and those whose codes are searched anew."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image

from raysweep import rng
from raysweep.config import ConfigError, override
from raysweep.data.dataset import open_dataset
from raysweep.evaluate.metrics import confusion, scores
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.models import read_codes
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks import shifting
from raysweep.orchestration.tasks.prediction import find_model
from raysweep.presets import smoke
from raysweep.represent.weights import save_trunk

ROOT = Path(__file__).parents[2]
COLOUR = override(smoke(), {"pretrain.method": "rgb", "evaluate.absent": "skip"})
GENERATIVE = override(COLOUR, {"pretrain.method": "stylegan2", "pretrain.gan.kimg": 0.0})


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Storage, file of the distance, and chains by name: raw colour, and two searches."""
    folder = tmp_path_factory.mktemp("robustness")
    with rng.seeded(0, "trunk"):
        save_trunk(build_trunk(TrunkConfig(width=4)), folder / "trunk.safetensors")
    weights = str(folder / "trunk.safetensors")
    experiments = {
        "rgb": COLOUR,
        "pixels": GENERATIVE,
        "trunk": override(GENERATIVE, {"project.distance": "trunk", "project.weights": weights}),
    }
    storage = Storage(str(folder / "runs"))
    dataset = open_dataset("face", cache=storage.local("data"), builtin=smoke().data.builtin)
    run = Run(StageStore(storage), dataset, torch.device("cpu"), lambda _: None)
    for experiment in experiments.values():
        compute(experiment, run)
    found = {
        name: chain_of(experiment, dataset.info.fingerprint)
        for name, experiment in experiments.items()
    }
    return storage, weights, found, dataset


def job(stored, *flags):
    spec = importlib.util.spec_from_file_location("job", ROOT / "jobs" / "robustness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(["--data", "face", "--preset", "smoke", "--storage", stored[0].uri, *flags])


def table(storage):
    with (storage.local("robustness") / "robustness.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_the_stage_searches_with_its_distance(stored):
    storage, _, chains, _ = stored
    store = StageStore(storage)
    codes = [read_codes(store, chains[name].projections["test"]) for name in ("pixels", "trunk")]
    assert not torch.allclose(*codes, atol=1e-3)


def test_table_and_figure_of_two_families(stored, capsys):
    storage, _, chains, dataset = stored
    names = [f"fit/{chains[name].fit.key}" for name in ("rgb", "pixels")]
    shifts = ["--shifts", "4", "0", "2", "--images", "3"]
    again = f"evaluate/{chains['rgb'].evaluate.key}"  # the first model by another name
    models = [flag for name in (*names, again) for flag in ("--model", name)]
    assert job(stored, *models, *shifts, "--px", "32") == 0
    rows = table(storage)
    assert [row["shift"] for row in rows] == ["0", "2", "4"] * 2
    assert [row["model"].split()[0] for row in rows] == ["rgb"] * 3 + ["stylegan2"] * 3
    printed = capsys.readouterr().out
    assert f"{float(rows[0]['miou']):.3f}" in printed
    assert "of 3 images" in printed  # how far the search is
    assert Image.open(storage.local("robustness") / "robustness.png").width > 500
    model, truth = find_model(storage, names[0]), dataset.masks("test", px=32)[:3]
    labels = model.model.predict(
        dataset.images("test", px=32)[:3], candidate=model.candidate, out_px=32
    )
    counts = confusion(labels[..., :28], truth[..., :28], len(dataset.info.classes)).sum(0)
    assert float(rows[0]["miou"]) == pytest.approx(scores(counts, absent="skip").miou)


def test_unmoved_images_are_found_as_the_stage_found_them(stored):
    storage, weights, chains, dataset = stored
    store = StageStore(storage)
    for name, given in (("pixels", None), ("trunk", weights)):
        chosen = find_model(storage, f"fit/{chains[name].fit.key}")
        config = shifting.projection_of(store, chosen, given)
        family = shifting.Family("", chosen, 16, config, lambda _: None)
        images = dataset.images("test", px=16)
        expected = chosen.model.predict(
            read_codes(store, chains[name].projections["test"]),
            candidate=chosen.candidate,
            out_px=16,
        )
        found = family.predict(images)
        assert float((found == expected).float().mean()) > 0.99  # batches differ in rounding
        assert torch.equal(family.examples[0], found[0])


def test_images_are_resized_only_if_they_must():
    images = torch.randint(0, 256, (1, 3, 8, 8), generator=rng.generator(0, "photo")).byte()
    assert shifting.resized(images, 8) is images
    flat = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(shifting.resized(flat, 4), flat[..., :4, :4])
    assert float(shifting.resized(images, 4).float().std()) < float(images.float().std())


def test_bad_input_is_refused_before_any_work(stored, tmp_path, monkeypatch):
    _, weights, chains, _ = stored
    monkeypatch.setattr(shifting, "shift_curve", lambda *_: pytest.fail("work has begun"))
    trunk = ("--model", f"fit/{chains['trunk'].fit.key}")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    cases = [
        (("--model", "fit/ffff"), "no such stage or MLflow run"),
        ((*trunk, "--images", "0"), "--images 0"),
        ((*trunk, "--shifts", "0", "16", "--px", "16"), "--shifts from 0 to 16: no column of 16"),
        (trunk, "--distance-weights None: .* measured 'trunk'"),
        ((*trunk, "--distance-weights", str(other)), "file of another content"),
        ((*trunk, "--distance-weights", "nowhere"), "cannot be read"),
        (("--model", "best", "--data", "car"), "its classes are"),
    ]
    for flags, message in cases:
        with pytest.raises(ConfigError, match=message):
            job(stored, *flags)
    with pytest.raises(pytest.fail.Exception, match="work has begun"):
        job(stored, *trunk, "--distance-weights", weights)
