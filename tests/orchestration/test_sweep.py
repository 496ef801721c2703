"""The sweep as a user runs it: a process, its output, its files, a kill, the same command again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).parents[2]
JOB = "sweep_resolution"
FLAGS = ["--preset", "smoke", "--repeats", "2", "--set", "pretrain.steps=60"]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def command(storage, *more):
    job = ROOT / "jobs" / f"{JOB}.py"
    return [sys.executable, str(job), *FLAGS, "--storage", str(storage), *more]


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
    return lambda storage, *more: script(JOB, *FLAGS, "--storage", storage, *more)


def sweep_directory(storage):
    return next(path.parent for path in storage.glob("resolution-*/table.csv"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    storage = tmp_path_factory.mktemp("undisturbed") / "runs"
    done = run(storage)
    assert done.returncode == 0, done.stderr
    return storage, done


def runs_of(storage):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    return client.search_runs(experiments, max_results=1000)


def test_it_ends_with_the_table_and_says_where_everything_is(undisturbed):
    storage, done = undisturbed
    assert done.stderr == "", "noise of libraries on the terminal"
    assert "Warning" not in done.stdout
    table = done.stdout.split("mIoU on the test split")[1]
    for row in ("raw colour", "random weights", "16 px", "24 px", "32 px"):
        assert row in table
    assert "mlflow ui --backend-store-uri sqlite:///" in done.stdout
    for name in ("table.csv", "table.md", "figure.png", "report.html", "log.txt"):
        assert (sweep_directory(storage) / name).stat().st_size > 0


def test_shared_stages_are_computed_once(undisturbed):
    storage, _ = undisturbed
    count = {name: len(list((storage / "stages" / name).iterdir())) for name in ("pretrain", "fit")}
    assert count == {"pretrain": 5, "fit": 30}


def test_second_run_runs_nothing_and_prints_the_same_table(undisturbed, run_here):
    storage, first = undisturbed
    before = (sweep_directory(storage) / "table.csv").read_bytes()
    stages = {path: path.stat().st_mtime_ns for path in storage.glob("stages/*/*")}
    again = run_here(storage)
    assert again.returncode == 0
    assert again.stdout.split("mIoU on")[1] == first.stdout.split("mIoU on")[1]
    assert "trials to run" not in again.stdout
    assert (sweep_directory(storage) / "table.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in storage.glob("stages/*/*")} == stages


def test_dry_run_shows_what_is_done_and_starts_nothing(undisturbed, run_here, tmp_path):
    storage, _ = undisturbed
    plan = run_here(storage, "--dry-run")
    assert plan.returncode == 0
    assert plan.stdout.count("done    ") == 30
    fresh = run_here(tmp_path / "fresh", "--dry-run")
    assert "30 trials on face" in fresh.stdout
    assert not list((tmp_path / "fresh").glob("*")), "a dry run left files behind"


def test_mlflow_holds_parent_configurations_and_repeats(undisturbed):
    storage, _ = undisturbed
    runs = runs_of(storage)
    by_level = {
        level: [r for r in runs if r.data.tags["raysweep.level"] == level]
        for level in ("sweep", "configuration", "repeat")
    }
    assert {level: len(found) for level, found in by_level.items()} == {
        "sweep": 1,
        "configuration": 15,
        "repeat": 30,
    }
    assert {r.info.status for r in runs} == {"FINISHED"}
    parent = by_level["sweep"][0].info.run_id
    assert {r.data.tags["mlflow.parentRunId"] for r in by_level["configuration"]} == {parent}
    keys = {tuple(sorted(r.data.params)) for r in by_level["configuration"] + by_level["repeat"]}
    assert keys == {("fit.resolution", "preset", "pretrain.method", "pretrain.resolution")}
    for configuration in by_level["configuration"]:
        assert {"best/miou", "best/miou_std", "best/n"} <= set(configuration.data.metrics)
        assert configuration.data.tags["dataset.fingerprint"]
    swept = [r for r in by_level["repeat"] if r.data.params["pretrain.method"] == "moco"]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    curve = client.get_metric_history(swept[0].info.run_id, "pretrain/loss")
    assert [point.step for point in curve] == [160, 320, 480, 640, 800, 960]
    assert swept[0].data.tags["paper.cell"].startswith("ganorcon_appE[")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("rendering", marks=pytest.mark.slow),
        pytest.param(r"\] 1/30", marks=pytest.mark.slow),
        r"\] 17/30",
    ],
)
def test_killed_sweep_ends_with_the_same_table(undisturbed, tmp_path, moment):
    storage, _ = undisturbed
    killed = tmp_path / "runs"
    process = subprocess.Popen(
        command(killed), stdout=subprocess.PIPE, text=True, env=environment(), bufsize=1
    )
    for line in process.stdout:
        if re.search(moment, line):
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "ended before it could be killed"
    again = run(killed)
    assert again.returncode == 0, again.stderr
    expected = (sweep_directory(storage) / "table.csv").read_bytes()
    assert (sweep_directory(killed) / "table.csv").read_bytes() == expected
    assert {r.info.status for r in runs_of(killed)} == {"FINISHED"}
    trunks = {
        p.parent.name: p.read_bytes() for p in killed.glob("stages/pretrain/*/trunk.safetensors")
    }
    for key, content in trunks.items():
        twin = storage / "stages" / "pretrain" / key / "trunk.safetensors"
        assert twin.read_bytes() == content, "resumed weights differ from the undisturbed ones"


def test_failed_trials_do_not_end_the_sweep(undisturbed, tmp_path):
    storage, _ = undisturbed
    done = run(tmp_path / "runs", "--repeats", "1", "--set", "pretrain.lr=1e30")
    assert done.returncode == 1
    assert "FloatingPointError" in done.stdout
    assert "raw colour" in done.stdout.split("mIoU on the test split")[1]
    logs = list(tmp_path.glob("runs/resolution-*/logs/*.txt"))
    assert logs
    assert "pretrain: loss is" in logs[0].read_text()


def test_search_tries_as_many_configurations_as_asked_and_is_taken_up_again(
    undisturbed, run_here, tmp_path
):
    storage, _ = undisturbed
    shutil.copytree(storage / "stages", tmp_path / "runs" / "stages")  # known results: quick
    shutil.copytree(storage / "data", tmp_path / "runs" / "data")
    missing = sorted((tmp_path / "runs" / "stages" / "evaluate").iterdir())
    for place in missing:
        shutil.rmtree(place)
    flags = ["--search", "optuna", "--num-samples", "3"]
    first = run(tmp_path / "runs", *flags)
    assert first.returncode == 0, first.stdout + first.stderr
    table = first.stdout.split("mIoU on the test split")[1]
    assert table.count("(2)") in range(6 + 1, 6 + 3 + 1), "baselines and up to three configurations"
    again = run_here(tmp_path / "runs", *flags)
    assert again.returncode == 0
    assert again.stdout.split("mIoU on")[1] == first.stdout.split("mIoU on")[1]
    assert "trials to run" not in again.stdout


def test_stage_records_state_lineage(undisturbed):
    storage, _ = undisturbed
    for path in storage.glob("stages/evaluate/*/stage.json"):
        record = json.loads(path.read_text())
        fit = storage / "stages" / "fit" / record["inputs"]["fit"] / "stage.json"
        pretrain = json.loads(fit.read_text())["inputs"]["pretrain"]
        assert (storage / "stages" / "pretrain" / pretrain / "stage.json").exists()
