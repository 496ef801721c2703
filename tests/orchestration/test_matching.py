"""Gradient matching and its rivals as stages of an experiment."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from raysweep.config import ConfigError, override
from raysweep.orchestration.compute import worker
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.models import load_fit
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.prediction import find_model, find_teacher
from raysweep.presets import matching_smoke

BASE = override(matching_smoke(), {"pretrain.gan.kimg": 0.16, "trunk.steps": 2})
UNET = {"fit.matching.segmentor.network": "unet", "trunk": None, "fit.matching.block": "output"}
BY_ANNOTATOR = {"evaluate.annotator": True}
DISTILLED = {"distilled": True, "student.epochs": 1}


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("runs")))
    dataset = opened(BASE.data, storage.uri)
    return Run(StageStore(storage), dataset, device_here(), lambda _: None)


def computed(run_with, changes=None):
    experiment = override(BASE, changes or {})
    record = compute(experiment, run_with)
    return record, chain_of(experiment, run_with.dataset.info.fingerprint)


def last_of(run_with, chain):
    last = run_with.store.directory(chain.fit) / "candidate-6.safetensors"
    return safetensors.torch.load_file(last)


def objective(name, **changes):
    return {"fit.matching.objective": name, **changes}


@pytest.mark.parametrize(
    ("changes", "networks"),
    [
        ({}, {"annotator", "segmentor"}),
        (UNET, {"annotator", "segmentor"}),
        (objective("maml"), {"annotator", "segmentor"}),
        (objective("inversion", trunk=None) | BY_ANNOTATOR, {"annotator"}),
        (objective("pseudo_labels") | BY_ANNOTATOR | {"fit.matching.steps": 4}, {"annotator"}),
        (objective("supervised"), {"segmentor"}),
    ],
    ids=["matching", "u-net", "maml", "inversion", "pseudo-labels", "supervised"],
)
def test_every_objective_leaves_the_networks_that_it_trains(run_with, changes, networks):
    record, chain = computed(run_with, changes)
    assert 0 < record["metrics"]["miou"] < 1
    assert {name.split(".")[0] for name in last_of(run_with, chain)} == networks


def test_one_fit_is_scored_by_annotator_segmentor_and_student(run_with):
    found = [computed(run_with, changes) for changes in ({}, BY_ANNOTATOR, DISTILLED)]
    records, chains = zip(*found, strict=True)
    assert len({chain.fit.key for chain in chains}) == 1
    assert len({chain.evaluate.key for chain in chains}) == 3
    assert len({json.dumps(record["metrics"]["per_class"]) for record in records}) == 3
    assert [sorted(chain.projections) for chain in chains] == [[], ["test", "val"], []]


def test_the_segmentor_starts_from_the_trunk(run_with):
    fixed = {"fit.matching.state": "fixed"}
    _, chain = computed(run_with, fixed)
    trunk = run_with.store.directory(chain.trunk) / "trunk.safetensors"
    expected = safetensors.torch.load_file(trunk)["layer1.0.conv1.weight"]
    found = last_of(run_with, chain)["segmentor.backbone.layer1.0.conv1.weight"]
    assert torch.equal(found, expected)
    _, without = computed(run_with, fixed | {"trunk": None})
    assert not torch.equal(
        last_of(run_with, without)["segmentor.backbone.layer1.0.conv1.weight"], expected
    )


def test_the_interval_changes_the_result_and_the_key(run_with):
    _, every = computed(run_with)
    _, third = computed(run_with, {"fit.matching.segmentor_interval": 3})
    assert every.pretrain == third.pretrain
    assert every.trunk == third.trunk
    first, second = last_of(run_with, every), last_of(run_with, third)
    name = "segmentor.classifier.4.weight"
    assert not torch.equal(first[name], second[name])


def test_an_interrupted_fit_goes_on_bit_for_bit(run_with, monkeypatch):
    monkeypatch.setitem(worker.run.__kwdefaults__, "checkpoint_seconds", 0.0)
    experiment = override(BASE, {"fit.matching.steps": 24, "fit.matching.checkpoints": 1})
    elsewhere = Run(
        StageStore(Storage(run_with.store.storage.uri + "-interrupted")),
        run_with.dataset,
        run_with.device,
        lambda _: None,
    )

    def stop(progress):
        if progress.stage == "fit" and progress.step == 20:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        compute(experiment, Run(elsewhere.store, run_with.dataset, run_with.device, stop))
    for runs in (elsewhere, run_with):
        compute(experiment, runs)
    chain = chain_of(experiment, run_with.dataset.info.fingerprint)
    first, second = (
        (runs.store.directory(chain.fit) / "candidate-24.safetensors").read_bytes()
        for runs in (elsewhere, run_with)
    )
    assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain.method": "moco"}, "learns to label a generator's images"),
        ({"trunk.method": "rgb"}, "leaves no trunk"),
        ({"fit.matching.segmentor.thin.trunk_width": 4}, "does not start from it"),
        (UNET | {"trunk": BASE.trunk.model_dump(mode="json")}, "does not start from it"),
        ({"fit.method": "projector"}, "only read by fit.method = 'matching'"),
        (objective("supervised") | BY_ANNOTATOR, "trains no annotator"),
        (objective("inversion"), "trains no segmentor"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(BASE, changes)


def test_a_user_finds_the_segmentor_and_a_teacher_that_can_teach(run_with):
    _, chain = computed(run_with)
    computed(run_with, BY_ANNOTATOR)
    best, alone = computed(run_with, objective("supervised"))
    storage = run_with.store.storage
    chosen = find_model(storage, f"fit/{chain.fit.key}")
    assert not chosen.model.takes_codes
    images = run_with.dataset.images("test", px=32)
    labels = chosen.model.predict(images, candidate=chosen.candidate, out_px=32)
    assert labels.shape == (10, 32, 32)
    assert find_model(storage, f"fit/{alone.fit.key}").candidate == best["metrics"]["candidate"]
    assert find_teacher(storage, "best") != alone.fit.key
    with pytest.raises(ConfigError, match="has no annotator"):
        load_fit(run_with.store, alone.fit.key, device_here())
