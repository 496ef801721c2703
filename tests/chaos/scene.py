"""Where one disturbed sweep takes place: its storage, its Ray, perhaps nodes and a server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import processes

ROOT = Path(__file__).parents[2]
FLAGS = ["--preset", "smoke", "--repeats", "1", "--set", "pretrain.steps=100"]
TMPFS_MB = 64
START_SECONDS = 120.0


@dataclass(frozen=True)
class Variant:
    """How the sweep is run.

    Attributes:
        workers: processes per pretraining; other numbers are other results.
        cluster: on two nodes of one core each beside a head without any.
        server: MLflow is a server instead of a file.
        tmpfs: the storage is a small disk of its own.
    """

    workers: int = 1
    cluster: bool = False
    server: bool = False
    tmpfs: bool = False


@dataclass
class Scene:
    """One sweep with all that belongs to it, below one short directory."""

    place: Path
    variant: Variant
    driver: subprocess.Popen[str] | None = None
    address: str | None = None
    server_port: int | None = None
    helpers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def storage(self) -> Path:
        """The sweep's ``--storage``."""
        return self.place / "runs"

    def __enter__(self) -> Scene:
        self.storage.mkdir(parents=True)
        if self.variant.tmpfs:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", str(self.storage)]
            subprocess.run(mount, check=True, timeout=10)
        if self.variant.server:
            self.start_server()
        return self

    def __exit__(self, *_: object) -> None:
        processes.end_all()
        if self.variant.tmpfs:
            subprocess.run(["umount", "-l", str(self.storage)], check=False, timeout=10)
        shutil.rmtree(self.place, ignore_errors=True)

    def start(self) -> None:
        """Give the command."""
        if self.variant.cluster and not processes.named("head"):
            self._start_cluster()
        words = [sys.executable, str(ROOT / "jobs" / "sweep_resolution.py"), *FLAGS]
        words += ["--storage", str(self.storage), "--workers", str(self.variant.workers)]
        if self.address is not None:
            words += ["--address", self.address]
        with (self.place / "out.txt").open("a") as out, (self.place / "err.txt").open("a") as err:
            self.driver = subprocess.Popen(
                words, stdout=out, stderr=err, text=True, env=self.environment(), cwd=self.place
            )

    def environment(self) -> dict[str, str]:
        """Return the variables of every process of the scene."""
        mine = {
            "PYTHONPATH": str(ROOT),  # a copy of the checkout tests itself
            "RAY_TMPDIR": str(self.place),
            "RAYSWEEP_CHECKPOINT_SECONDS": "0",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        }
        if self.server_port is not None:
            mine["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{self.server_port}"
        inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS",)}
        return inherited | mine

    def said(self) -> tuple[str, str]:
        """Return what all attempts so far wrote on standard output and standard error."""
        files = (self.place / "out.txt", self.place / "err.txt")
        return tuple(f.read_text(errors="replace") if f.exists() else "" for f in files)

    def finished(self) -> dict[str, tuple[int, str]]:
        """Return every finished stage: place to time of ``stage.json`` and its content."""
        return {
            str(done.parent.relative_to(self.storage)): (
                (done.parent / "stage.json").stat().st_mtime_ns,
                (done.parent / "stage.json").read_text(),
            )
            for done in self.storage.glob("stages/*/*/DONE")
        }

    def table(self) -> bytes | None:
        """Return ``table.csv``, if there is one."""
        found = sorted(self.storage.glob("resolution-*/table.csv"))
        return found[0].read_bytes() if found else None

    def work_seconds(self) -> float:
        """Return the seconds that the finished stages say they took."""
        records = (json.loads(text) for _, text in self.finished().values())
        return sum(record["cost"]["seconds"] for record in records)

    def start_server(self) -> None:
        """Start ``mlflow server`` and wait until it answers.

        Raises:
            TimeoutError: it does not.
        """
        self.server_port = self.server_port or free_port()
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        words += ["--port", str(self.server_port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.place / 'server.db'}"]
        words += ["--artifacts-destination", str(self.place / "artifacts")]
        with (self.place / "server.txt").open("a") as log:
            server = subprocess.Popen(words, stdout=log, stderr=log, text=True, cwd=self.place)
        self.helpers.append(server)
        _wait_for(f"http://127.0.0.1:{self.server_port}/health")

    def server(self) -> list[processes.Process]:
        """Return the processes of the MLflow server."""
        return [p for p in processes.descendants() if "mlflow" in p.words and "server" in p.words]

    def _start_cluster(self) -> None:
        words = [sys.executable, str(Path(__file__).with_name("cluster.py"))]
        cluster = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env=self.environment(), cwd=self.place
        )
        self.helpers.append(cluster)
        assert cluster.stdout is not None
        self.address = cluster.stdout.readline().strip()
        if not self.address:
            raise RuntimeError(f"the cluster did not start: exit code {cluster.wait(30)}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def can_mount() -> bool:
    """Return whether this user may mount a small disk."""
    if os.geteuid() != 0:
        return False
    here = Path(f"/tmp/raysweep-probe-{os.getpid()}")
    here.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(here)]
    mounted = subprocess.run(words, capture_output=True, check=False, timeout=10).returncode == 0
    if mounted:
        subprocess.run(["umount", str(here)], check=True, timeout=10)
    here.rmdir()
    return mounted


def stop_driver(scene: Scene) -> None:
    """Kill the driver and whatever it started; helpers stay."""
    spared = {process.pid for process in scene.helpers if process.poll() is None}
    spared |= {p.pid for pid in spared for p in processes.descendants(pid)}
    for process in processes.descendants():
        if process.pid not in spared:
            processes.send(process, signal.SIGKILL)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer after {START_SECONDS} s")
