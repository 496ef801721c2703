"""Memory runs out: the stage goes on in smaller micro-batches, and the result says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raysweep import micro
from raysweep.config import to_dict
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.projectors import ProjectorConfig
from raysweep.orchestration.compute.memory import (
    OutOfMemoryError,
    Thrift,
    exhausted,
    killed,
    sparing,
)
from raysweep.orchestration.store.stages import Stage
from raysweep.orchestration.store.storage import Storage
from raysweep.represent.config import RepresentConfig

ROOT = Path(__file__).parents[2]
ROWS = 64


def fit_stage(**changes):
    return Stage("fit", {"fit": FitConfig(**changes).relevant(), "px": 64})


def pretrain_stage(**changes):
    return Stage("pretrain", {"represent": RepresentConfig(**changes).relevant()})


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path))


def greedy(most, seen=None):
    """Work that fails on a GPU whose memory holds so many rows."""

    def work():
        sizes = [part.stop - part.start for part in micro.parts(ROWS)]
        if seen is not None:
            seen.append(sizes)
        if max(sizes) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")
        return {"loss": 0.5}

    return work


def test_enough_memory_changes_nothing(storage):
    assert sparing(fit_stage(), storage, greedy(ROWS)) == {"loss": 0.5}


def test_it_is_tried_once_more_in_micro_batches_and_the_result_says_so(storage):
    seen = []
    stage = fit_stage(projector=ProjectorConfig(kind="cnn", widths=(8,), norm="none"))
    assert sparing(stage, storage, greedy(16, seen)) == {"loss": 0.5, "micro_batches": 4}
    assert seen == [[64], [16, 16, 16, 16]]
    assert Thrift(storage, stage).parts() == 1, "a later command begins with whole batches"


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (fit_stage(projector=ProjectorConfig(kind="cnn", widths=(8,), norm="batch")), True),
        (fit_stage(projector=ProjectorConfig(kind="cnn", widths=(8,), norm="none")), False),
        (pretrain_stage(batch=128, bn_groups=4), False),
        (pretrain_stage(batch=128, bn_groups=2), True),
        (pretrain_stage(method="stylegan2", gan={"batch": 16}), False),
        (pretrain_stage(method="stylegan2", gan={"batch": 8}), True),
        (Stage("distill", {"student": {"batch": 8}}), True),
    ],
)
def test_changed_batch_statistics_are_said(stage, said, storage):
    assert ("batch_statistics" in sparing(stage, storage, greedy(16))) == said


def test_too_small_all_the_same_names_the_settings_and_what_to_do(storage):
    stage = pretrain_stage(batch=256, resolution=64, precision="bf16", moco={"queue": 512})
    with pytest.raises(OutOfMemoryError) as caught:
        sparing(stage, storage, greedy(8))
    said = str(caught.value)
    assert str(stage) in said
    assert "out of GPU memory, also in 4 micro-batches" in said
    for setting in ("pretrain.batch = 256", "pretrain.resolution = 64", "precision = bf16"):
        assert setting in said
    assert "lower one of them, or use a GPU with more memory" in said
    assert "Tried to allocate 2.00 GiB" in said
    assert Thrift(storage, stage).parts() == 1, "the next command may be on a larger machine"


def test_what_has_no_micro_batches_fails_at_once(storage):
    seen = []
    stage = Stage("fit", {"fit": to_dict(FitConfig(method="matching"))})
    with pytest.raises(OutOfMemoryError, match="out of GPU memory with fit"):
        sparing(stage, storage, greedy(16, seen))
    assert len(seen) == 1


def test_other_errors_are_left_alone(storage):
    def work():
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        sparing(fit_stage(), storage, work)


def test_who_goes_on_elsewhere_knows_of_it(storage):
    stage, seen = fit_stage(), []
    assert Thrift(storage, stage).lower(), "the driver, after Ray has ended a process"
    sparing(stage, Storage(storage.uri), greedy(ROWS, seen))
    assert seen == [[16, 16, 16, 16]]


def test_memory_is_given_back_before_the_second_attempt(storage):
    import weakref

    held = []

    def work():
        assert all(ref() is None for ref in held), "the first attempt's tensors are still there"
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        if len(held) == 1:
            raise MemoryError
        return {}

    sparing(fit_stage(), storage, work)
    assert len(held) == 2


REAL = """
import resource, sys, torch
from raysweep import micro
from raysweep.orchestration.compute.memory import sparing
from raysweep.orchestration.store.stages import Stage
from raysweep.orchestration.store.storage import Storage
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))

def work():
    for part in micro.parts(64):
        torch.empty((part.stop - part.start) * 2**22)
    return {}

stage = Stage("fit", {"fit": {"method": "projector", "batch": 64, "projector": {"kind": "mlp"}}})
print(sparing(stage, Storage(sys.argv[1]), work)["micro_batches"])
"""


def test_real_failure_of_the_allocator_is_understood(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", REAL, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["4"], done.stderr
    assert "out of memory; once more in 4 micro-batches" in done.stderr


def test_victims_of_ray_are_read_from_what_it_says():
    said = (
        "Caught unexpected exception: 2 worker(s) were killed due to the node running low on "
        "memory. Memory on the node (IP: 10.0.0.2, ID: c9cc) was 22.4GB used / 23.5GB limit\n"
        "Considered workers: [\n"
        "Selected to kill: (Actor(e6b480fae55a23f56573c29e01000000): job ID=01000000, pid=24985)\n"
        "Selected to kill: (Actor(aab480fae55a23f56573c29e01000000): job ID=01000000, pid=24986)\n"
        "Not selected: (Actor(ffb480fae55a23f56573c29e01000000): job ID=01000000, pid=24987)\n]"
    )
    assert killed(RuntimeError(said)) == [
        "e6b480fae55a23f56573c29e01000000",
        "aab480fae55a23f56573c29e01000000",
    ]
    assert killed(RuntimeError("something else")) is None


def test_only_errors_about_memory_count():
    assert exhausted(MemoryError()) == "memory"
    assert exhausted(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert exhausted(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")) == "GPU memory"
    assert exhausted(RuntimeError("index out of range")) is None


SWEEP = """
import os, sys
meminfo = {l.split()[0]: int(l.split()[1]) for l in open("/proc/meminfo")}
total, used = meminfo["MemTotal:"], meminfo["MemTotal:"] - meminfo["MemAvailable:"]
os.environ["RAY_memory_usage_threshold"] = str((used + 5e6) / total)
os.environ["RAY_memory_monitor_refresh_ms"] = "100"
from jobs import sweep_resolution
sys.exit(sweep_resolution.main(sys.argv[1:]))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sweep_goes_on_when_ray_kills_trials_for_memory(tmp_path):
    """Batches of 16,384 images take more than 5 GB, a quarter of them does not.

    Needs a machine with 8 GB to spare that nothing else fills meanwhile.
    """
    flags = ["--preset", "smoke", "--repeats", "1", "--storage", str(tmp_path / "runs")]
    for setting in ("batch=16384", "moco.queue=16384", "steps=2", "warmup_steps=0"):
        flags += ["--set", f"pretrain.{setting}"]
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, *flags],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nearly used up; once more in smaller micro-batches" in done.stdout
    assert "on with 1 at a time" in done.stdout
    assert "note: 32 px: pretrain/" in done.stdout, "beside the table"
    records = [
        json.loads(p.read_text()) for p in tmp_path.glob("runs/stages/pretrain/*/stage.json")
    ]
    parts = {record["metrics"].get("micro_batches") for record in records}
    assert parts == {None, 4}, "untrained rows need no less memory"
