"""Time and memory of a plan, against what stages took and what a paper reports."""

import io

import pytest
from rich.console import Console

from raysweep.config import override
from raysweep.data.dataset import DatasetInfo
from raysweep.orchestration.planning.devices import DEVICES, device_hours, gpu_gib, print_devices
from raysweep.orchestration.planning.estimate import (
    BESIDE,
    Clock,
    Work,
    pretraining_work,
    work_of,
)
from raysweep.orchestration.planning.plan import make_plan
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.preview import preview
from raysweep.paper_presets import ganorcon
from raysweep.paper_presets.ganorcon import FFHQ_IMAGES
from raysweep.presets import demo, smoke
from search_spaces import projection, resolution

COUNTS = {"unlabelled": 7000, "train": 50, "val": 50, "test": 100}
BY_NAME = {device.name: device for device in DEVICES}

CONV = {"fit.projector.kind": "conv_b", "fit.projector.widths": [64, 32, 32, 32, 64] + [32] * 4}
RGB = {"pretrain.method": "rgb"}
GAN = {"pretrain.method": "stylegan2", "fit.resolution": 32, "label.source": "generated"}
ENSEMBLE = GAN | {"fit.method": "pixel_ensemble"}
REGAN = GAN | {"fit.projector.widths": None}

# processor seconds on one core of a small cloud machine, demo preset
MEASURED = [
    ({}, "pretrain", 209),
    ({"pretrain.method": "simsiam", "pretrain.simsiam.dim": 256}, "pretrain", 285),
    (GAN, "pretrain", 839),
    (RGB, "fit", 17.9),
    ({}, "fit", 23.0),
    (CONV, "fit", 40.8),
    (GAN | CONV, "fit", 14.3),
    (ENSEMBLE, "fit", 7.7),
    (REGAN | {"fit.projector.kind": "regan_s"}, "fit", 26.9),
    (REGAN | {"fit.projector.kind": "regan_m"}, "fit", 33.7),
    (REGAN | {"fit.projector.kind": "regan_l"}, "fit", 40.1),
    (RGB, "label", 13.7),
    (CONV, "label", 21.9),
    (ENSEMBLE, "label", 32.7),
    (RGB, "evaluate", 1.64),
    (CONV, "evaluate", 3.0),
    (ENSEMBLE, "evaluate", 2.47),
    ({"distilled": True}, "distill", 74.0),
]


@pytest.mark.parametrize(("changes", "stage", "seconds"), MEASURED)
def test_stages_of_the_demo_preset_take_what_they_took(changes, stage, seconds):
    found = work_of(override(demo(), changes), COUNTS)[stage].seconds(stage)
    assert found == pytest.approx(BESIDE * seconds, rel=0.25)


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage(str(tmp_path)))


def plan_of(space, base, preset, cells=None):
    cells = space.cells(preset) if cells is None else cells
    return make_plan(space, base, cells=cells, repeats=1, fingerprint="abc")


def test_a_search_takes_as_long_as_its_split_has_images(store):
    plan = plan_of(projection, demo(), "demo")
    times, trial = Clock(plan.trials, store, COUNTS), plan.trials[-1]
    per_image = {
        split: times.of(trial, stage) / (16 if split == "train" else COUNTS[split])
        for split, stage in trial.chain.projections.items()
    }
    assert per_image["train"] == pytest.approx(per_image["test"]) == pytest.approx(per_image["val"])
    assert times.seconds(trial, "project") * 3 == pytest.approx(
        sum(times.of(trial, stage) for stage in trial.chain.projections.values())
    )


def test_what_finished_stages_took_corrects_the_rest(store, monkeypatch):
    plan = plan_of(resolution, demo(), "demo")
    done = plan.trials[-1].chain.fit
    plain = Clock(plan.trials, store, COUNTS)
    other = next(t for t in plan.trials if t.chain.fit != done)
    monkeypatch.setattr(store, "done", lambda stage: stage == done)
    taken = {"cost": {"seconds": 3 * plain.of(plan.trials[-1], done)}}
    monkeypatch.setattr(store, "record", lambda stage: taken)
    times = Clock(plan.trials, store, COUNTS)
    assert times.of(other, other.chain.fit) == pytest.approx(3 * plain.of(other, other.chain.fit))
    assert times.seconds(other, "pretrain") == plain.seconds(other, "pretrain")


# devices


def test_the_papers_pretraining_takes_what_the_paper_reports():
    work = pretraining_work(ganorcon(images=FFHQ_IMAGES).pretrain, COUNTS, px=512)
    on_four = BY_NAME["GTX 1080 Ti"].seconds(work, "bf16") / 4 / 3600
    assert on_four == pytest.approx(7 * 24 + 10, rel=0.1)


def test_tensor_cores_are_used_for_the_precisions_that_they_have():
    work = Work(1e6, 0)
    for name, bf16, fp16 in (("V100", False, True), ("A100", True, True), ("T4", False, True)):
        device = BY_NAME[name]
        plain = device.seconds(work, "fp32")
        assert (device.seconds(work, "bf16") < plain) is bf16
        assert (device.seconds(work, "fp16") < plain) is fp16


@pytest.fixture(scope="module")
def small_paper():
    """The paper's networks at a side that is quick to count."""
    changes = {"data.px": 64, "pretrain.resolution": 64, "fit.resolution": 64}
    return override(ganorcon(), changes)


def test_memory_follows_batch_and_side(small_paper):
    before = gpu_gib(small_paper)
    assert gpu_gib(override(small_paper, {"pretrain.batch": 64}))["pretrain"] > before["pretrain"]
    single = override(small_paper, {"pretrain.precision": "fp32"})
    assert gpu_gib(single)["pretrain"] > before["pretrain"]
    larger = gpu_gib(override(small_paper, {"fit.resolution": 128}))
    assert larger["fit"] > before["fit"]
    # sixteen images whose first layer and its norm are there at once, beside the maps
    numbers = 16 * (2 * 1024 + 256 / 4 + 512 / 16 + 1024 / 64 + 2048 / 256) * 128**2
    assert larger["evaluate"] == pytest.approx(1 + numbers * 4 / 2**30, rel=0.02)


def printed_by(function, *arguments, **named):
    out = io.StringIO()
    function(Console(file=out, width=160), *arguments, **named)
    return out.getvalue()


def test_what_is_shown_of_gpus_says_that_it_was_not_measured(small_paper, store):
    cell = resolution.cells("demo")[:1] + resolution.cells("demo")[-1:]
    cells = [c._replace(changes={"pretrain.method": c.changes["pretrain.method"]}) for c in cell]
    plan = plan_of(resolution, small_paper, "paper", cells)
    shown = printed_by(print_devices, plan, store, counts=COUNTS)
    assert "an estimate that was never measured" in shown
    assert "assumptions" in shown
    hours = device_hours(plan.stages(), Clock(plan.trials, store, COUNTS))
    assert hours[BY_NAME["H100"]] < hours[BY_NAME["A100"]] < hours[BY_NAME["GTX 1080 Ti"]]
    line = next(line for line in shown.splitlines() if line.startswith("A100"))
    assert f"{hours[BY_NAME['A100']]:,.0f}" in line.split()
    huge = override(small_paper, {"pretrain.batch": 65536})
    too_large = plan_of(resolution, huge, "paper", cells)
    row = next(
        line
        for line in printed_by(print_devices, too_large, store, counts=COUNTS).splitlines()
        if line.startswith("H200")
    )
    assert "pretrain" in row


@pytest.mark.parametrize(("preset", "long"), [(smoke, False), (demo, True)])
def test_gpus_are_shown_for_plans_of_more_than_a_day(preset, long, store):
    base = override(preset(), {"pretrain.steps": 2_000_000} if long else {})
    info = DatasetInfo(
        name="faces",
        classes=("background", "skin"),
        palette=((0, 0, 0), (9, 9, 9)),
        licence="none",
        fingerprint="abc",
        counts=COUNTS,
    )
    cells = resolution.cells("demo" if long else "smoke")
    shown = printed_by(preview, plan_of(resolution, base, "demo", cells), store, info=info)
    assert ("on GPUs" in shown) is long
