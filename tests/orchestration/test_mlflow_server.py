"""A real MLflow server: away at the start, restarted, frozen, slow, with two drivers."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest

from raysweep.orchestration.compute.worker import Progress
from raysweep.orchestration.tracking import client as mlflow_client
from raysweep.orchestration.tracking import live_run
from raysweep.orchestration.tracking import tracker as tracking
from raysweep.orchestration.tracking.live_run import About, LiveRun
from tests.orchestration.mlflow_servers import (
    RUNS,
    SLOW,
    Proxy,
    Server,
    finished_sweep,
    postgres,
    send,
    tracker_of,
)

ROOT = Path(__file__).parents[2]
SWEPT = {"sweep": 1, "configuration": 15, "repeat": 15}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def complete(times=1):
    return {level: ["FINISHED"] * count * times for level, count in RUNS.items()}


def added(before, after):
    """The runs that are in ``after`` only; newer ones come first."""
    return {level: found[: len(found) - len(before[level])] for level, found in after.items()}


@pytest.mark.slow
def test_server_that_is_away_or_restarted_costs_nothing_but_the_same_command(tmp_path, monkeypatch):
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    sweep = finished_sweep(tmp_path / "runs")
    away = send(sweep)
    assert away.problem is not None
    assert away.link is None
    server.start()

    def restart(count):
        if count == 1:
            server.kill()
        if count == 3:
            server.start()

    try:
        disturbed = send(sweep, between=restart)
        assert disturbed.problem is None, "it was back before the end"
        assert disturbed.is_up_to_date()
        assert disturbed.link.startswith(server.uri)
        assert server.runs() == complete()
        before = server.runs()
        assert send(sweep).problem is None
        assert server.runs() == before, "sent twice"
    finally:
        server.kill()


def test_frozen_server_holds_nothing_up(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    sweep = finished_sweep(tmp_path / "runs")
    server.send(signal.SIGSTOP)
    started = time.monotonic()
    try:
        frozen = send(sweep)
    finally:
        server.send(signal.SIGCONT)
    assert frozen.problem is not None
    assert time.monotonic() - started < 40, "two calls of 2 x 3 s and their pauses"


def test_two_drivers_share_a_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    already, sweeps = server.runs(), [finished_sweep(tmp_path / f"runs{at}") for at in range(2)]
    trackers = []
    threads = [
        threading.Thread(target=lambda sweep=sweep: trackers.append(send(sweep)))
        for sweep in sweeps
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [tracker.problem for tracker in trackers] == [None, None]
    assert added(already, server.runs()) == complete(times=2)


def test_a_run_that_is_made_twice_since_the_answer_came_too_late_is_there_once(
    server, proxy, tmp_path
):
    already, proxy.seconds, proxy.stall = server.runs(), 0.0, "runs/create"
    assert send(finished_sweep(tmp_path / "runs")).problem is None
    assert proxy.stall is None, "no answer came too late"
    assert added(already, server.runs()) == complete()


@pytest.fixture
def proxy(server, monkeypatch):
    with Proxy(server.port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        yield proxy
        proxy.shutdown()


def test_trials_do_not_wait_and_everything_arrives(server, proxy, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mlflow_client, "SILENT_SECONDS", SLOW)
    sweep = finished_sweep(tmp_path / "runs")
    already, tracker = server.runs(), tracker_of(sweep)
    tracker.open()
    before = time.monotonic()
    for trial in sweep.plan.trials:
        tracker.log(trial)
    assert time.monotonic() - before < SLOW, "a trial that ends waits for no answer"
    with caplog.at_level(logging.WARNING, "raysweep"):
        tracker.close(files={}, status="FINISHED")
    assert tracker.problem is None
    assert tracker.is_up_to_date()
    assert added(already, server.runs()) == complete()
    assert proxy.most > 1, "answers are waited for side by side"
    assert caplog.text.count("MLflow answers slowly; waiting for it, ") == 1


def test_the_end_waits_for_a_limited_time_and_the_next_command_sends_the_rest(
    server, proxy, tmp_path, monkeypatch
):
    sweep = finished_sweep(tmp_path / "runs")
    monkeypatch.setattr(tracking, "END_SECONDS", 6 * SLOW)
    already, started = server.runs(), time.monotonic()
    late = send(sweep)
    taken = time.monotonic() - started
    assert late.problem.startswith("too slow: ")
    assert late.link is None
    assert taken < 6 * SLOW + 10 * SLOW + 1, "the limit and the few answers of the beginning"
    proxy.seconds = 0.0
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    assert send(sweep).problem is None
    assert added(already, server.runs()) == complete(), "none made twice, none left open"


def test_training_does_not_wait_for_its_metrics(server, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(live_run, "SEND_SECONDS", 0.0)
    sweep = finished_sweep(tmp_path / "runs")
    trial = sweep.plan.trials[0]
    about = About(name="a training", first="pretrain/loss", images_per_step=2, params={"lr": 0.1})
    stage = trial.chain.pretrain
    started = time.monotonic()
    run = LiveRun(sweep.store, stage, trial.experiment, info=sweep.info, preset="x", about=about)
    for step in range(1, 21):
        run.log(Progress("pretrain", step, 20, {"loss": 1 / step}))
    assert time.monotonic() - started < SLOW, "twenty windows, and not one answer"
    run.finish([{"step": step, "loss": 1 / step} for step in range(1, 21)])
    assert run.problem is None
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("raysweep/pretrain")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.params["preset"]) == ("FINISHED", "x")
    points = client.get_metric_history(found.info.run_id, "pretrain/loss")
    assert [point.step for point in points] == list(range(2, 42, 2)), "every window once"


@pytest.mark.slow
def test_drivers_that_make_one_database_at_once_do_not_break_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "import sys\n"
        "from raysweep.orchestration.tracking.client import connect, experiment_id\n"
        "from raysweep.orchestration.store.storage import Storage\n"
        f"storage = Storage({str(tmp_path)!r})\n"
        "sys.stdin.readline()\n"  # all start at once
        "print(experiment_id(connect(storage), storage, 'raysweep/one'))\n"
    )
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    found = [driver.communicate("go\n", timeout=200) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0, 0], found[0][1] + found[1][1]
    assert len({out for out, _ in found}) == 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_logs_to_a_server_on_postgresql(tmp_path):
    uri, stop = postgres()
    server = Server(tmp_path, backend=uri)
    try:
        server.start()
        job = ROOT / "jobs" / "sweep_resolution.py"
        flags = ["--preset", "smoke", "--repeats", "1", "--storage", str(tmp_path / "runs")]
        done = subprocess.run(
            [sys.executable, str(job), *flags],
            capture_output=True,
            text=True,
            env=os.environ | {"MLFLOW_TRACKING_URI": server.uri, "PYTHONPATH": str(ROOT)},
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"then open {server.uri}" in done.stdout
        assert server.runs() == {level: ["FINISHED"] * count for level, count in SWEPT.items()}
    finally:
        server.kill()
        stop()
