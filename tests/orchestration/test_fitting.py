import json

import pytest
import safetensors.torch
import torch

from raysweep.config import override
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.presets import smoke
from raysweep.represent.gan_weights import ImportedGan, save_imported
from raysweep.represent.generators import read_generator

GENERATIVE = override(smoke(), {"pretrain.method": "stylegan2", "pretrain.gan.kimg": 0.16})
ENSEMBLE = {"fit.method": "pixel_ensemble", "fit.pixel.members": 2, "fit.pixel.epochs": 2}


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("runs")))
    dataset = opened(GENERATIVE.data, storage.uri)
    return Run(StageStore(storage), dataset, device_here(), lambda _: None)


def fitted(experiment, run_with):
    compute(experiment, run_with)
    chain = chain_of(experiment, run_with.dataset.info.fingerprint)
    folder = run_with.store.directory(chain.fit)
    last = sorted(folder.glob("candidate-*.safetensors"))[-1]
    return chain, safetensors.torch.load_file(last)


@pytest.mark.parametrize("base", [GENERATIVE, smoke()], ids=["generator", "trunk"])
def test_an_ensemble_of_pixel_classifiers_is_fitted_and_scored(base, run_with):
    chain, tensors = fitted(override(base, ENSEMBLE), run_with)
    members = {name.split(".")[2] for name in tensors}
    assert members == {"0", "1"}
    record = run_with.store.record(chain.evaluate)
    assert record["metrics"]["candidate"] == 0
    assert 0 < record["metrics"]["miou"] < 1


def test_codes_are_searched_once_for_all_fits_of_a_draw(run_with):
    first, _ = fitted(GENERATIVE, run_with)
    second, _ = fitted(override(GENERATIVE, ENSEMBLE), run_with)
    other = chain_of(override(GENERATIVE, {"data.draw": 1}), run_with.dataset.info.fingerprint)
    assert set(first.projections) == {"train", "val", "test"}
    assert first.projections == second.projections
    assert other.projections["test"] == first.projections["test"]
    assert other.projections["train"] != first.projections["train"]


def test_search_of_more_images_than_a_batch_finds_the_same(run_with, monkeypatch):
    chain, _ = fitted(GENERATIVE, run_with)
    codes = safetensors.torch.load_file(
        run_with.store.directory(chain.projections["test"]) / "codes.safetensors"
    )["codes"]
    monkeypatch.setattr("raysweep.orchestration.compute.projecting.BATCH", 3)
    elsewhere = Storage(run_with.store.storage.uri + "-in-parts")
    apart = Run(StageStore(elsewhere), run_with.dataset, run_with.device, lambda _: None)
    chain, _ = fitted(GENERATIVE, apart)
    found = safetensors.torch.load_file(
        apart.store.directory(chain.projections["test"]) / "codes.safetensors"
    )["codes"]
    torch.testing.assert_close(found, codes, atol=1e-3, rtol=1e-3)
    left = {path.name for path in apart.store.directory(chain.projections["test"]).iterdir()}
    assert left == {"codes.safetensors", "found.png", "stage.json", "DONE"}


def test_settings_that_a_fit_does_not_read_are_not_in_its_key():
    fingerprint = "0" * 16

    def key(changes):
        return chain_of(override(GENERATIVE, changes), fingerprint).fit.key

    assert key({"fit.pixel.members": 3}) == key({})
    assert key(ENSEMBLE | {"fit.lr": 0.5}) == key(ENSEMBLE)
    assert key(ENSEMBLE | {"fit.pixel.members": 3}) != key(ENSEMBLE)


def test_layers_of_the_generator_change_the_fit(run_with):
    layers = ["synthesis.b16.conv1", "synthesis.b8.conv1"]
    _, base = fitted(GENERATIVE, run_with)
    chain, tensors = fitted(override(GENERATIVE, {"fit.layers": layers}), run_with)
    assert tensors["first.weight"].shape[1] < base["first.weight"].shape[1]
    curve = json.loads((run_with.store.directory(chain.fit) / "curve.json").read_text())
    assert [row["step"] for row in curve] == [10, 20]


def test_every_setting_of_the_search_is_part_of_its_key():
    changes = {
        "space": "w",
        "steps": 5,
        "lr": 0.2,
        "ramp_up": 0.2,
        "ramp_down": 0.1,
        "optimise_noise": True,
        "regulariser": 1.0,
        "w_noise": 0.1,
        "w_noise_ramp": 0.5,
        "perceptual": 0.5,
        "pixel": 0.5,
        "mean_samples": 32,
        "seed": 1,
    }
    elsewhere = {"distance", "weights"}  # test_distances.py
    assert set(changes) == set(type(GENERATIVE.project).model_fields) - elsewhere
    keys = {
        chain_of(override(GENERATIVE, {f"project.{name}": value}), "0" * 16).evaluate.key
        for name, value in changes.items()
    }
    assert len(keys) == len(changes)


def test_the_first_stylegan_is_a_representation_like_the_second(run_with):
    network = {"resolution": 16, "z_dim": 4, "w_dim": 4, "mapping_layers": 1, "channel_max": 8}
    changes = {f"pretrain.gan.stylegan1.{name}": value for name, value in network.items()}
    changes |= {"pretrain.method": "stylegan1", "pretrain.gan.path_weight": 0.0}
    chain, _ = fitted(override(GENERATIVE, changes), run_with)
    assert 0 < run_with.store.record(chain.evaluate)["metrics"]["miou"] < 1


def test_an_imported_generator_is_a_representation(run_with, tmp_path):
    trained = chain_of(GENERATIVE, run_with.dataset.info.fingerprint).pretrain
    compute(GENERATIVE, run_with)
    generator = read_generator(run_with.store.directory(trained) / "generator.safetensors")
    imported = ImportedGan(
        source="a test",
        sha256="0" * 64,
        format="stylegan2-ada",
        config=generator.config,
        generator=generator.state_dict(),
    )
    save_imported(imported, tmp_path / "weights")
    place = {"pretrain.method": "generator", "pretrain.weights": str(tmp_path / "weights")}
    chain, _ = fitted(override(GENERATIVE, place), run_with)
    ours = run_with.store.record(chain.evaluate)["metrics"]["miou"]
    theirs = chain_of(GENERATIVE, run_with.dataset.info.fingerprint).evaluate
    assert ours == run_with.store.record(theirs)["metrics"]["miou"]
