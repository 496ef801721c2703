"""Real MLflow servers, one that answers late, PostgreSQL, and a sweep to send to them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.prepared import prepare
from raysweep.orchestration.tracking.tracker import Tracker
from search_spaces import resolution
from tests.chaos.scene import free_port

TRIALS = 4
RUNS = {"sweep": 1, "configuration": TRIALS, "repeat": TRIALS}
START_SECONDS = 120
SLOW = 0.3
"""Seconds that an answer takes; the default limits are for some ten times this."""
TOO_LATE = 5.0
HOP = {"connection", "content-length", "host", "transfer-encoding"}


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
            if "raysweep.level" in run.data.tags:  # a run of a sweep
                found[run.data.tags["raysweep.level"]].append(run.info.status)
        return found


class Proxy(ThreadingHTTPServer):
    """Passes everything on to a server, late."""

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Late)
        self.behind, self.seconds = port, SLOW
        self.now = self.most = 0  # answers under way
        self.stall = None  # the path of one answer that comes when nobody waits any more
        self.uri = f"http://127.0.0.1:{self.server_port}"


class _Late(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        self.server.now += 1
        self.server.most = max(self.server.most, self.server.now)
        time.sleep(self.server.seconds)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        data = answer.read()
        if self.server.stall is not None and self.path.endswith(self.server.stall):
            self.server.stall = None
            time.sleep(TOO_LATE)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        behind.close()
        self.server.now -= 1

    do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815

    def log_message(self, *_):
        pass


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
