"""One representation, in this process or on two workers under Ray Train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).parents[2]
JOB = "pretrain_contrastive"
FLAGS = ["--preset", "smoke", "--set", "pretrain.steps=60", "--set", "pretrain.bn_groups=1"]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def command(storage, *more):
    job = ROOT / "jobs" / f"{JOB}.py"
    return [sys.executable, str(job), *FLAGS, "--storage", str(storage), *more]


def run(storage, *more):
    return subprocess.run(command(storage, *more), capture_output=True, text=True, check=False)


@pytest.fixture
def run_here(script):
    return lambda storage, *more: script(JOB, *FLAGS, "--storage", storage, *more)


def curve_of(storage):
    return json.loads(next(storage.glob("stages/pretrain/*/curve.json")).read_text())


def test_one_process_leaves_a_stage_and_a_tracked_curve(run_here, tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1.0 of 1.0 kimg" in done.stdout
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raysweep/pretrain")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["pretrain.method"] == "moco"
    history = client.get_metric_history(found.info.run_id, "pretrain/loss")
    assert sorted(point.step for point in history) == [160, 320, 480, 640, 800, 960]
    assert "already trained" in run_here(tmp_path).stdout


def test_two_workers_learn_what_one_does_with_two_groups(run_here, tmp_path):
    """Where the mathematics says so: each worker has the batch statistics of one group."""
    two = run(tmp_path / "two", "--workers", "2")
    assert two.returncode == 0, two.stdout + two.stderr
    one = run_here(tmp_path / "one", "--set", "pretrain.bn_groups=2")
    assert one.returncode == 0, one.stderr
    ours, theirs = curve_of(tmp_path / "two"), curve_of(tmp_path / "one")
    assert [row["loss"] for row in ours[:3]] == pytest.approx(
        [row["loss"] for row in theirs[:3]], rel=1e-4
    )


def test_killed_training_resumes_bit_for_bit(run_here, tmp_path):
    longer = ["--set", "pretrain.steps=200"]
    straight = run_here(tmp_path / "straight", *longer)
    assert straight.returncode == 0, straight.stderr
    storage = tmp_path / "killed"
    process = subprocess.Popen(
        command(storage, *longer),
        stdout=subprocess.DEVNULL,
        env=os.environ | {"RAYSWEEP_CHECKPOINT_SECONDS": "0"},
    )
    while not list(storage.glob("work/pretrain-*/checkpoint.pt")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = run_here(storage, *longer)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("trunk.safetensors", "curve.json"):
        ours = next(storage.glob(f"stages/pretrain/*/{name}")).read_bytes()
        theirs = next((tmp_path / "straight").glob(f"stages/pretrain/*/{name}")).read_bytes()
        assert ours == theirs, name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "3"], "--workers 3: must divide pretrain.batch = 16"),
        (["--set", "pretrain.method=random"], "allowed here are moco, simsiam"),
        (["--set", "pretrain.moco.queue=60"], "must be a multiple of batch = 16"),
    ],
)
def test_bad_input_ends_with_code_2(run_here, tmp_path, flags, message):
    done = run_here(tmp_path, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_dry_run_of_days_of_work_shows_hours_and_memory_on_gpus(script, tmp_path):
    storage = str(tmp_path / "runs")
    flags = ["--data", "face", "--storage", storage, "--dry-run"]
    long = script("pretrain_contrastive", "--preset", "paper", *flags).stdout
    assert "hours of one" in long
    assert "never measured" in long
    hours = {line.split()[0]: line.split()[3] for line in long.splitlines() if " GiB " in line}
    assert int(hours["T4"].replace(",", "")) > int(hours["A100"]) > 0
    short = script("pretrain_contrastive", "--preset", "smoke", *flags).stdout
    assert "hours of one" not in short
    assert not (tmp_path / "runs").exists()
