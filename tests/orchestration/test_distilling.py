"""The distilled half of a chain: keys, kills, which student, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from raysweep.config import ConfigError, override, to_dict
from raysweep.distill.manifest import read_manifest
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.distilling import open_shards
from raysweep.orchestration.compute.models import candidates_of, load_model, load_student
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.prediction import find_model, find_teacher, predict_folder
from raysweep.presets import PRESETS, smoke

PLAIN = override(smoke(), {"pretrain.method": "rgb"})
DISTILLED = override(PLAIN, {"distilled": True})
GENERATIVE = override(
    smoke(),
    {
        "distilled": True,
        "pretrain.method": "stylegan2",
        "pretrain.gan.kimg": 0.16,
        "label.source": "generated",
        "label.portion": 0.2,
        "label.soft": 3,
        "student.loss": "soft",
    },
)
KEY = "abc"


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("runs")))
    return Run(StageStore(storage), opened(PLAIN.data, storage.uri), device_here(), lambda _: None)


@pytest.fixture(scope="module")
def distilled(run_with):
    record = compute(DISTILLED, run_with)
    return chain_of(DISTILLED, run_with.dataset.info.fingerprint), record


# keys


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_of_students_do_not_touch_a_chain_without_one(preset):
    base = PRESETS[preset]()
    changes = {"label.px": 16, "label.soft": 2, "student.lr": 0.5, "student.resolution": 32}
    assert list(chain_of(override(base, changes), KEY)) == list(chain_of(base, KEY))
    assert [stage.name for stage in chain_of(base, KEY)] == ["pretrain", "fit", "evaluate"]


def test_a_distilled_chain_shares_its_teacher():
    plain, chain = chain_of(PLAIN, KEY), chain_of(DISTILLED, KEY)
    assert [stage.name for stage in chain] == ["pretrain", "fit", "label", "distill", "evaluate"]
    assert chain.fit == plain.fit
    assert plain.model == plain.fit
    assert chain.model == chain.distill
    assert chain.evaluate != plain.evaluate


def test_a_generative_teacher_needs_only_the_labelled_images_in_its_generator():
    chain = chain_of(GENERATIVE, KEY)
    assert list(chain.projections) == ["train"]
    assert "data" not in chain.label.inputs


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"label.clean_pixels": 3}, {"label", "distill", "evaluate"}),
        ({"label.psi": 0.5}, set()),
        ({"student.lr": 0.5}, {"distill", "evaluate"}),
        ({"student.shuffle_buffer": 0}, {"distill", "evaluate"}),
        ({"student.checkpoints": 1}, {"distill", "evaluate"}),
        ({"student.thin.trunk_width": 4}, set()),
        ({"student.plateau_floor": 1e-3}, set()),
        ({"student.plateau_patience": 3}, {"distill", "evaluate"}),
        ({"evaluate.px": 16}, {"evaluate"}),
        ({"fit.seed": 1}, {"fit", "label", "distill", "evaluate"}),
    ],
)
def test_a_setting_touches_the_stages_that_read_it(changes, changed):
    before, after = (chain_of(e, KEY) for e in (DISTILLED, override(DISTILLED, changes)))
    found = {a.name for a, b in zip(after, before, strict=True) if a != b}
    assert found == changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label.source": "generated"}, r"'rgb' labels unlabelled images; set label.source="),
        ({"pretrain.method": "stylegan2"}, r"'stylegan2' labels generated images"),
        ({"student.loss": "soft"}, r"label.soft = 0: student.loss = 'soft' needs soft labels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(DISTILLED, changes)
    override(PLAIN, changes)  # no student: not read


# what a chain leaves


def test_a_student_is_left_and_scored(distilled, run_with):
    chain, record = distilled
    assert record["inputs"]["distill"] == chain.distill.key
    folder = run_with.store.directory(chain.distill)
    model = load_student(run_with.store, chain.distill.key, device_here())
    assert candidates_of(model) == (10, 20)
    assert record["metrics"]["candidate"] in (10, 20)
    curve = json.loads((folder / "curve.json").read_text())
    assert [row["step"] for row in curve] == [10, 20]
    went = run_with.store.record(chain.distill)["metrics"]
    assert 0 <= went["waiting_share"] <= 1
    assert went["samples"] == 160


def test_labels_are_those_of_the_last_candidate(distilled, run_with):
    chain, _ = distilled
    teacher = load_model(run_with.store, chain.fit.key, device_here())
    shards = open_shards(run_with.store.directory(chain.label))
    assert shards.manifest.rows == 40
    assert shards.manifest.teacher == f"fit/{chain.fit.key}"
    stream = shards.stream(DISTILLED.student)
    for batch in stream:
        labels = teacher.predict(
            batch["image"], candidate=DISTILLED.fit.steps, out_px=DISTILLED.label.px
        )
        assert (labels != batch["mask"]).float().mean() < 1e-3  # other batches, other last bits
    unlabelled = run_with.dataset.images("unlabelled", px=32)[:40]
    seen = torch.cat([batch["image"] for batch in stream]).flatten(1)
    assert {bytes(i.numpy()) for i in seen} == {bytes(i.numpy()) for i in unlabelled.flatten(1)}


def test_a_generative_teacher_drops_uncertain_images_and_gives_soft_labels(run_with):
    record = compute(GENERATIVE, run_with)
    chain = chain_of(GENERATIVE, run_with.dataset.info.fingerprint)
    assert 0 <= record["metrics"]["miou"] <= 1
    went = run_with.store.record(chain.label)["metrics"]
    assert (went["images"], went["dropped"]) == (32, 8)
    shards = open_shards(run_with.store.directory(chain.label))
    batch = next(iter(shards.stream(GENERATIVE.student)))
    assert batch["soft"].shape[1:3] == (2, 3)
    assert (batch["soft"][:, 1].sum(1, dtype=torch.int64) == 255).all()


def test_the_learning_rate_follows_the_loss_on_the_labelled_images(run_with):
    changes = {"student.plateau_patience": 0, "student.lr": 1e-6, "student.plateau_floor": 1e-7}
    experiment = override(DISTILLED, changes | {"student.epochs": 8})
    compute(experiment, run_with)
    chain = chain_of(experiment, run_with.dataset.info.fingerprint)
    curve = json.loads((run_with.store.directory(chain.distill) / "curve.json").read_text())
    assert all(row["validation_loss"] > 0 for row in curve)
    assert curve[-1]["lr"] <= curve[0]["lr"]


def test_the_shuffle_buffer_and_the_seed_choose_the_order(distilled, run_with):
    chain, _ = distilled
    shards = open_shards(run_with.store.directory(chain.label))

    def order(**changes):
        stream = shards.stream(DISTILLED.student.model_copy(update=changes))
        return torch.cat([batch["image"] for batch in stream])

    assert torch.equal(order(), order())
    assert not torch.equal(order(shuffle_buffer=0), order())
    assert not torch.equal(order(seed=1), order())


def test_shards_of_other_classes_are_refused(distilled, run_with, tmp_path):
    chain, _ = distilled
    from raysweep.orchestration.compute.distilling import check_classes

    info = run_with.dataset.info
    manifest = read_manifest(*place(run_with.store.directory(chain.label)))
    fewer = info.model_copy(update={"classes": info.classes[:-1]})
    with pytest.raises(ConfigError, match="the shards have 12 classes, face has 11"):
        check_classes(manifest, fewer)


def place(directory):
    import pyarrow.fs as pafs

    return pafs.LocalFileSystem(), str(directory)


# finding models


@pytest.mark.parametrize(
    "form", ["distill/{0.distill.key}", "evaluate/{0.evaluate.key}", "distill/{0.distill.key:.7}"]
)
def test_a_student_is_found_and_labels_photographs(distilled, run_with, tmp_path, form):
    chain, record = distilled
    chosen = find_model(run_with.store.storage, form.format(chain))
    assert chosen.model.directory.name == chain.distill.key
    assert chosen.candidate == record["metrics"]["candidate"]
    pixels = np.random.default_rng(0).integers(0, 256, (45, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert predict_folder(chosen, images=tmp_path, out=tmp_path / "out") == 1
    assert Image.open(tmp_path / "out" / "masks" / "a.png").size == (30, 45)


def test_a_teacher_is_found_by_its_fit(distilled, run_with):
    chain, _ = distilled
    storage = run_with.store.storage
    assert find_teacher(storage, f"fit/{chain.fit.key}") == chain.fit.key
    assert find_teacher(storage, f"fit/{chain.fit.key:.8}") == chain.fit.key
    with pytest.raises(ConfigError, match="is no finished fit"):
        find_teacher(storage, f"distill/{chain.distill.key}")


# kills

SCRIPT = """
    import json, os, signal, sys
    from raysweep.config import from_dict
    from raysweep.orchestration.compute.pipeline import compute
    from raysweep.orchestration.store.stages import StageStore
    from raysweep.orchestration.store.storage import Storage
    from raysweep.orchestration.compute.datasets import opened
    from raysweep.orchestration.on_ray.slots import device_here
    from raysweep.orchestration.compute.worker import Run
    from raysweep.experiment import Experiment

    place, experiment, stage, step = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    experiment = from_dict(Experiment, json.loads(experiment))

    def report(progress):
        if (progress.stage, progress.step) == (stage, step):
            os.kill(os.getpid(), signal.SIGKILL)

    storage = Storage(place)
    dataset = opened(experiment.data, storage.uri)
    compute(experiment, Run(StageStore(storage), dataset, device_here(), report))
"""


def killed(storage, experiment, stage, step):
    return subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(SCRIPT),
            str(storage),
            json.dumps(to_dict(experiment)),
            stage,
            str(step),
        ],
        env=os.environ | {"RAYSWEEP_CHECKPOINT_SECONDS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_while_labelling_and_while_distilling_it_ends_with_the_same_student(
    distilled, run_with, tmp_path
):
    chain, _ = distilled
    assert killed(tmp_path, DISTILLED, "label", 32).returncode == -signal.SIGKILL
    finished = next(tmp_path.glob("work/label-*/shard-000000.parquet"))
    written = finished.stat().st_mtime_ns
    assert not list(tmp_path.glob("work/label-*/shard-000002.parquet"))
    assert killed(tmp_path, DISTILLED, "distill", 20).returncode == -signal.SIGKILL
    shard = next(tmp_path.glob("stages/label/*/shard-000000.parquet"))
    assert shard.stat().st_mtime_ns == written, "a finished file was made again"
    assert list(tmp_path.glob("work/distill-*/checkpoint.pt"))
    store = StageStore(Storage(str(tmp_path)))
    compute(DISTILLED, Run(store, run_with.dataset, device_here(), lambda _: None))
    for stage in (chain.label, chain.distill):
        ours = run_with.store.directory(stage)
        theirs = tmp_path.joinpath(*stage.place)
        for file in ours.iterdir():
            if file.name != "stage.json":  # it holds times
                assert (theirs / file.name).read_bytes() == file.read_bytes(), file
