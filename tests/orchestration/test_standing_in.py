"""A network in place of the person who labels generated images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from jobs import generate as job
from raysweep.config import ConfigError, override
from raysweep.data.dataset import describe
from raysweep.orchestration.compute.annotated import read_lineage
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.standing_in import StandIn, Training
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks import generating
from raysweep.presets import smoke

SHORT = Training(images=48, steps=60)
GENERATIVE = override(
    smoke(),
    {"pretrain.method": "stylegan2", "pretrain.gan.kimg": 0.16, "data.shots": 2, "fit.steps": 10},
)


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("runs")))
    dataset = opened(GENERATIVE.data, storage.uri)
    return Run(StageStore(storage), dataset, device_here(), lambda _: None)


def stand_in(run_with, training=SHORT):
    return StandIn("face", px=16, store=run_with.store, training=training)


def test_it_learns_and_is_trained_once(run_with):
    short = stand_in(run_with, Training(images=48, steps=1))
    first = short.train(device=run_with.device, report=lambda _: None)
    longer = stand_in(run_with).train(device=run_with.device, report=lambda _: None)
    assert longer > first
    reports = []
    assert stand_in(run_with).train(device=run_with.device, report=reports.append) == longer
    assert reports == []


def test_its_renderings_are_no_images_of_any_preset(run_with):
    ours = stand_in(run_with).dataset.images("train", px=16)
    theirs = torch.cat([run_with.dataset.images(s, px=16) for s in ("train", "val", "test")])
    same = (ours[:, None] == theirs[None]).flatten(2).all(2)
    assert not same.any()


def test_a_fit_on_its_labels_says_so(run_with, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generating, "Training", lambda: SHORT)
    chain = chain_of(GENERATIVE, describe("face", builtin=GENERATIVE.data.builtin).fingerprint)
    compute(GENERATIVE, run_with)
    out = tmp_path / "samples"
    storage = run_with.store.storage.uri
    flags = ["--generator", f"pretrain/{chain.pretrain.key}", "--count", "3", "--out", str(out)]
    flags += ["--to-label", "--stand-in", "face", "--storage", storage]
    assert job.main(flags) == 0
    assert "labelled by the stand-in for a person, whose own mIoU is 0." in capsys.readouterr().out
    assert read_lineage(out).labelled_by == "stand-in"
    masks = [np.array(Image.open(path)) for path in sorted((out / "masks").iterdir())]
    assert [mask.shape for mask in masks] == [(16, 16)] * 3
    classes = json.loads((out / "classes.json").read_text())["classes"]
    assert classes == list(run_with.dataset.info.classes)
    experiment = override(GENERATIVE, {"annotated": str(out)})
    compute(experiment, run_with)
    fit = chain_of(experiment, run_with.dataset.info.fingerprint).fit
    assert run_with.store.record(fit)["metrics"]["labelled_by"] == "stand-in"
    plain = chain_of(GENERATIVE, run_with.dataset.info.fingerprint).fit
    assert run_with.store.record(plain)["metrics"]["labelled_by"] == "dataset"


def test_it_labels_only_what_is_to_be_labelled(run_with, tmp_path):
    flags = ["--generator", "pretrain/0", "--count", "3", "--out", str(tmp_path / "x")]
    with pytest.raises(ConfigError, match="--stand-in: .* add --to-label"):
        job.main([*flags, "--stand-in", "face"])
