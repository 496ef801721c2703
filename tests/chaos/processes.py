"""The processes that descend from this one, and no others: who they are, and signals to them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

NAMES = {
    "trial": "ray::ImplicitFunc",
    "train_worker": "ray::RayTrainWorker",
    "raylet": "raylet/raylet",
    "head": "gcs/gcs_server",
}
"""What the command line of a process begins with, or its first word ends with."""


@dataclass(frozen=True)
class Process:
    """A live process: ``started`` tells it from a later one with the same number."""

    pid: int
    parent: int
    started: int
    words: str

    def __str__(self) -> str:
        return f"{self.words.split(' ')[0].rpartition('/')[2]} {self.pid}"


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose parent dies: none gets lost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(of: int | None = None) -> list[Process]:
    """Return the live descendants of a process (of this one, if not said), parents first."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        process = _read(entry) if entry.name.isdigit() else None
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    found, layer = [], [of or os.getpid()]
    while layer:
        below = [process for pid in layer for process in children.get(pid, [])]
        found += below
        layer = [process.pid for process in below]
    return found


def named(kind: str) -> list[Process]:
    """Return this process's descendants of a kind, see ``NAMES``."""
    name = NAMES[kind]
    return [p for p in descendants() if p.words.startswith(name) or _program(p).endswith(name)]


def send(process: Process, number: signal.Signals) -> bool:
    """Signal a descendant; return whether it was still there."""
    if process not in descendants():
        return False
    os.kill(process.pid, number)
    return True


def end_all(*, seconds: float = 20.0) -> None:
    """Kill every descendant and wait until none is left.

    Raises:
        TimeoutError: some are left.
    """
    deadline = time.monotonic() + seconds
    while left := descendants():
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        reap()
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive after {seconds} s: {', '.join(map(str, left))}")
        time.sleep(0.05)


def reap(*, spare: int | None = None) -> None:
    """Bury dead children, except the one whose exit code somebody waits for."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == spare:
            continue
        state = _state(entry)
        if state[:2] == ("Z", str(os.getpid())):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(entry.name), os.WNOHANG)


def open_files(process: Process) -> set[str]:
    """Return the paths of the files that a process holds open."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _program(process: Process) -> str:
    return process.words.partition(" ")[0]


def _state(entry: Path) -> tuple[str, ...]:
    """Return state, parent and the other fields that follow the name in ``/proc/*/stat``."""
    try:
        return tuple((entry / "stat").read_text().rpartition(")")[2].split())
    except OSError:
        return ("gone",)


def _read(entry: Path) -> Process | None:
    fields = _state(entry)
    if fields[0] in ("gone", "Z", "X"):
        return None
    try:
        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return Process(int(entry.name), int(fields[1]), int(fields[19]), words.strip())
