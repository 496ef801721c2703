"""The projector sweep as a user runs it: its table, and the search over architectures."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).parents[2]
JOB = "sweep_projector"

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def command(storage, *more):
    job = ROOT / "jobs" / f"{JOB}.py"
    return [sys.executable, str(job), "--preset", "smoke", "--storage", str(storage), *more]


def environment():
    return os.environ | {"RAYSWEEP_CHECKPOINT_SECONDS": "0", "COLUMNS": "120"}


def run(storage, *more):
    return subprocess.run(
        command(storage, *more), capture_output=True, text=True, env=environment(), check=False
    )


@pytest.fixture
def run_here(script, monkeypatch):
    """For commands that start no Ray."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    return lambda storage, *more: script(JOB, "--preset", "smoke", "--storage", storage, *more)


def statuses(storage):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    return {r.info.status for r in client.search_runs(experiments, max_results=1000)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    storage = tmp_path_factory.mktemp("projector") / "runs"
    done = run(storage)
    assert done.returncode == 0, done.stdout + done.stderr
    return storage, done


def test_the_table_has_the_papers_shape(grid):
    storage, done = grid
    assert done.stderr == ""
    with (storage / "projector-smoke-face" / "table.csv").open() as file:
        cells = {
            (row["representation + projector"], row["evaluated"]): row
            for row in csv.DictReader(file)
        }
    for row in ("MoCo v2 + MLP", "MoCo v2 + CONV", "StyleGAN2 + MLP ensemble"):
        for column in ("direct", "distilled"):
            assert 0 < float(cells[row, column]["mean"]) < 1
    assert cells["random weights + MLP", "distilled"]["n"] == "0"
    markdown = (storage / "projector-smoke-face" / "table.md").read_text()
    assert "0.5365" in markdown
    assert "never number by number" in markdown
    assert statuses(storage) == {"FINISHED"}


def test_representations_and_searches_in_a_generator_are_shared(grid):
    storage, _ = grid
    count = {
        name: len(list((storage / "stages" / name).iterdir()))
        for name in ("pretrain", "project", "label", "distill")
    }
    # raw colour, random weights, MoCo, SimSiam, StyleGAN2 and the one left random;
    # of both generators the labelled, validation and test images
    assert count == {"pretrain": 6, "project": 6, "label": 4, "distill": 4}


def test_a_killed_search_is_taken_up_and_ends_with_its_best_configurations(grid, run_here):
    storage, _ = grid
    flags = ["--search", "optuna", "--num-samples", "5"]
    process = subprocess.Popen(
        command(storage, *flags), stdout=subprocess.PIPE, text=True, env=environment(), bufsize=1
    )
    for line in process.stdout:
        if re.search(r"MoCo v2|cnn|mlp \d|conv_b", line) and "mIoU" in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "ended before it could be killed"
    again = run(storage, *flags)
    assert again.returncode == 0, again.stdout + again.stderr
    table = again.stdout.split("mIoU on the test split")[1]
    assert re.search(r"(cnn|mlp|conv_b) \d+", table)
    assert "random weights + MLP" in table
    assert statuses(storage) == {"FINISHED"}
    third = run_here(storage, *flags)
    assert "trials to run" not in third.stdout
    assert third.stdout.split("mIoU on")[1] == again.stdout.split("mIoU on")[1]


def test_a_search_needs_a_validation_split(grid, run_here):
    storage, _ = grid
    done = run_here(storage, "--search", "optuna", "--set", "evaluate.protocol=five_folds")
    assert done.returncode == 2
    assert "evaluate.protocol=held_out" in done.stderr
