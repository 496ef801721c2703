"""A real MLflow server: away at the start, restarted in between, frozen, with two drivers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from raysweep.orchestration import cli
from raysweep.orchestration.prepared import prepare
from raysweep.orchestration.tracking import Tracker
from search_spaces import resolution
from tests.chaos.scene import free_port

ROOT = Path(__file__).parents[2]
TRIALS = 4
RUNS = {"sweep": 1, "configuration": TRIALS, "repeat": TRIALS}
SWEPT = {"sweep": 1, "configuration": 15, "repeat": 15}
START_SECONDS = 120

pytestmark = pytest.mark.timeout(600)


class Server:
    """``mlflow server`` in a process group of its own."""

    def __init__(self, place, backend=None):
        self.place, self.port = place, free_port()
        self.backend = backend or f"sqlite:///{place / 'server.db'}"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        words = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", self.backend]
        words += ["--artifacts-destination", str(self.place / "artifacts")]
        log = (self.place / "server.txt").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            stdout=log,
            stderr=log,
            cwd=self.place,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((self.place / "server.txt").read_text())

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def send(self, number):
        os.killpg(self.process.pid, number)

    def runs(self):
        """Level to the status of every run of the server."""
        client = mlflow.MlflowClient(tracking_uri=self.uri)
        experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
        found = {level: [] for level in RUNS}
        for run in client.search_runs(experiments, max_results=1000):
            found[run.data.tags["raysweep.level"]].append(run.info.status)
        return found


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


def finished_sweep(storage):
    """A sweep whose stages are all done: what a driver has to send."""
    flags = ["--preset", "smoke", "--repeats", "1", "--storage", str(storage)]
    sweep = prepare("resolution", resolution, cli.parser("", sweep=True).parse_args(flags))
    sweep.plan = replace(sweep.plan, trials=sweep.plan.trials[:TRIALS])
    for trial in sweep.plan.trials:
        for stage in trial.chain:
            place = Path(sweep.store.storage.path(*stage.place))
            place.mkdir(parents=True, exist_ok=True)
            scores = ("miou", "foreground_miou", "weighted_miou", "pixel_accuracy")
            metrics = dict.fromkeys(scores, 0.5) | {"per_class": [0.5] * len(sweep.info.classes)}
            record = {"metrics": metrics, "cost": {"seconds": 1.0}}
            (place / "stage.json").write_text(json.dumps(record))
            (place / "curve.json").write_text(json.dumps([{"step": 10, "loss": 1.0}]))
            Image.new("RGB", (8, 8)).save(place / "grid.png")
            (place / "DONE").touch()
    sweep.directory.mkdir()
    return sweep


def tracker_of(sweep):
    papers = sweep.space.PAPERS
    return Tracker(
        sweep.name, sweep.plan, sweep.store, papers=papers, info=sweep.info, preset=sweep.preset
    )


def send(sweep, *, between=lambda count: None):
    """What a driver does: open, log each repeat, close."""
    tracker = tracker_of(sweep)
    tracker.open()
    for count, trial in enumerate(sweep.plan.trials):
        between(count)
        tracker.log(trial)
    tracker.close(files={}, status="FINISHED")
    return tracker


def complete(times=1):
    return {level: ["FINISHED"] * count * times for level, count in RUNS.items()}


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
    sweeps = [finished_sweep(tmp_path / f"runs{at}") for at in range(2)]
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
    assert server.runs() == complete(times=2)


@pytest.mark.slow
def test_drivers_that_make_one_database_at_once_do_not_break_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "import sys\n"
        "from raysweep.orchestration.mlflow_client import connect, experiment_id\n"
        "from raysweep.orchestration.storage import Storage\n"
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


def postgres():
    """Start PostgreSQL in a directory of its own; return its URI and how to end it."""
    found = shutil.which("pg_ctl") or next(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses root
    data, port = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp")), free_port()
    if user:
        shutil.chown(data, "postgres")

    def call(*words):
        tool = str(Path(found).with_name(words[0]))
        done = subprocess.run(
            [*user, tool, *words[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            timeout=120,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    call("initdb", "-D", str(data), "-A", "trust", "-U", "mlflow", "-E", "UTF8")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    call("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(data / "log"), "start")
    uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"

    def stop():
        call("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(data)

    return uri, stop


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
