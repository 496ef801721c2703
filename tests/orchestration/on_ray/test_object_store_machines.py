"""Processes that share an object store and no disk: stages, trials and the sweep of a user."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from raysweep.config import override
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.news import Listener
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.on_ray.tune import run_trials
from raysweep.orchestration.planning.plan import Cell, make_trial
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.presets import smoke
from search_spaces import resolution

ROOT = Path(__file__).parents[3]
STAGE = Stage("fit", {"lr": 0.1, "steps": 3}, {"data": "abc"})


def _compute(uri, scratch, *, met=None, dies=False):
    """Claim the stage in a process of a cluster; return whether it was computed and had to wait.

    The stage takes until another process waits for it, which makes the file ``met``.
    """
    os.environ["RAYSWEEP_SCRATCH"] = scratch
    store, waited = StageStore(Storage(uri)), []

    def waiting():
        waited.append(1)
        Path(met).touch()

    with store.claim(STAGE, waiting=waiting) as workspace:
        if dies:
            os._exit(1)
        if workspace is not None:
            deadline = time.monotonic() + 60
            while met and not Path(met).exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            workspace.commit({})
    return workspace is not None, bool(waited)


def start(uri, machine, **options):
    """Compute in a process that shares the bucket, not the disk, with those of other machines."""
    return ray.remote(num_cpus=1, max_retries=0)(_compute).remote(uri, str(machine), **options)


@pytest.mark.ray
def test_one_machine_of_a_cluster_computes_a_stage_and_the_others_wait(cluster, bucket, tmp_path):
    uri = bucket.uri("one-flight")
    tasks = [start(uri, tmp_path / name, met=str(tmp_path / "met")) for name in "ab"]
    found = ray.get(tasks, timeout=100)
    assert sorted(found) == [(False, True), (True, False)]


@pytest.mark.ray
def test_a_machine_that_dies_leaves_no_lock(cluster, bucket, tmp_path):
    uri = bucket.uri("dies")
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(start(uri, tmp_path / "a", dies=True), timeout=100)
    computed, _ = ray.get(start(uri, tmp_path / "b"), timeout=100)
    assert computed


@pytest.mark.ray
def test_trials_find_what_they_find_on_the_local_disk(cluster, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSWEEP_SCRATCH", str(tmp_path / "driver"))
    storage, local = Storage(bucket.uri("trials")), Storage(str(tmp_path / "runs"))
    base = override(smoke(), {"pretrain.method": "random", "pretrain.trunk.width": 4})
    cell = Cell("random", "16", {"fit.resolution": 16})
    dataset = opened(base.data, local.uri)
    fingerprint = dataset.info.fingerprint
    trial = make_trial(resolution, base, cell, repeat=0, fingerprint=fingerprint)
    ended, failures = [], []
    listener = Listener(
        progress=lambda trial, progress: None,
        finished=ended.append,
        failed=lambda trial, message: failures.append(message),
    )
    run_trials([trial], storage=storage, listener=listener)
    assert failures == []
    assert ended == [trial]
    run_here = Run(StageStore(local), dataset, device_here(), lambda progress: None)
    expected = compute(trial.experiment, run_here)["metrics"]
    assert StageStore(storage).record(trial.chain.evaluate)["metrics"] == expected
    assert {name.split("/")[0] for name in bucket.listed("trials")} == {"stages"}


def sweep(storage, scratch):
    job = ROOT / "jobs" / "sweep_resolution.py"
    flags = ["--preset", "smoke", "--repeats", "1", "--storage", storage]
    return subprocess.run(
        [sys.executable, str(job), *flags],
        capture_output=True,
        text=True,
        env=os.environ
        | {"RAYSWEEP_SCRATCH": str(scratch), "COLUMNS": "120", "RAY_ADDRESS": "local"},
        cwd=scratch,
        check=False,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1300)
def test_the_sweep_of_a_user_ends_with_the_table_of_the_local_disk(bucket, tmp_path):
    tables = {}
    for name, storage in (
        ("local", str(tmp_path / "runs")),
        ("remote", bucket.uri("sweep")),
        ("another machine", bucket.uri("sweep")),
    ):
        (tmp_path / name).mkdir()
        done = sweep(storage, tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("trials to run" in done.stdout) == (name != "another machine")
        tables[name] = done.stdout.split("mIoU on the test split")[1].split("mIoU: mean")[0]
    assert tables["remote"] == tables["another machine"] == tables["local"]
    assert {name.split("/")[0] for name in bucket.listed("sweep")} == {"stages"}
