"""Faults, each done to a running sweep; every one reaches only descendants of this process."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import processes
from tests.chaos.scene import Scene, Variant, stop_driver


@dataclass(frozen=True)
class Blow:
    """A fault that was done.

    Attributes:
        kind: a key of ``FAULTS``.
        what: to whom or what.
        redone: seconds of work that no checkpoint had.
        ends: whether the driver was killed with it.
        after: to be called when the attempt has ended.
    """

    kind: str
    what: str
    redone: float = 0.0
    ends: bool = False
    after: list[Callable[[], None]] = field(default_factory=list)


Fault = Callable[["Context"], Blow | None]
"""Does a fault, or returns None when there is nothing yet to do it to."""


@dataclass
class Context:
    """What a fault is done to.

    Attributes:
        scene: the sweep.
        draw: decides all that is left open.
        pause: seconds for which a process is stopped.
        seen: when each half-done stage was first seen, by its directory.
    """

    scene: Scene
    draw: random.Random
    pause: float
    seen: dict[Path, float] = field(default_factory=dict)

    def look(self) -> None:
        """Note which stages are half-done."""
        for place in self.scene.storage.glob("work/*-*/"):
            if place.is_dir():
                self.seen.setdefault(place, time.time())

    def unsaved(self, victims: list[processes.Process]) -> float:
        """Return the seconds of work since the last checkpoints of what the victims compute."""
        now, lost = time.time(), 0.0
        for path in {path for victim in victims for path in processes.open_files(victim)}:
            place = Path(path.removesuffix(".lock"))
            if path.endswith(".lock") and place in self.seen:
                checkpoint = place / "checkpoint.pt"
                try:
                    lost += now - checkpoint.stat().st_mtime
                except FileNotFoundError:
                    lost += now - self.seen[place]
        return lost

    def driver(self) -> list[processes.Process]:
        """Return the driver, if it runs."""
        running = self.scene.driver
        return [p for p in processes.descendants() if running and p.pid == running.pid]


def _kill(kind: str, victims: list[processes.Process], context: Context) -> Blow | None:
    if not victims:
        return None
    victim = context.draw.choice(victims)
    workers = {"trial": [victim], "mlflow": []}.get(kind)
    if workers is None:
        workers = processes.named("trial") + context.driver()
    if kind == "node":
        workers = [p for p in processes.descendants(victim.pid) if p.words.startswith("ray::")]
    lost = context.unsaved(workers)
    if not processes.send(victim, signal.SIGKILL):
        return None
    return Blow(kind, str(victim), lost, ends=kind == "driver")


def _trial(context: Context) -> Blow | None:
    return _kill("trial", processes.named("trial"), context)


def _train_worker(context: Context) -> Blow | None:
    if not list(context.scene.storage.glob("work/pretrain-*/checkpoint.pt")):
        return None  # a worker group that is starting
    return _kill("train_worker", processes.named("train_worker"), context)


def _raylet(context: Context) -> Blow | None:
    return _kill("raylet", processes.named("raylet"), context)


def _node(context: Context) -> Blow | None:
    raylets = [p for p in processes.named("raylet") if "--head" not in p.words.split(" ")]
    return _kill("node", raylets, context)


def _driver(context: Context) -> Blow | None:
    return _kill("driver", context.driver(), context)


def _head(context: Context) -> Blow | None:
    return _kill("head", processes.named("head"), context)


def _notice(context: Context) -> Blow | None:
    """Tell a process to end, as a spot machine does before it is taken away."""
    found = processes.named("train_worker") or processes.named("trial")
    if not found or not _checkpoints(context.scene):
        return None
    victim = context.draw.choice(found)
    if not processes.send(victim, signal.SIGTERM):
        return None
    return Blow("notice", str(victim))


def _mlflow(context: Context) -> Blow | None:
    """Kill the server; it comes back at once, or when the sweep has ended."""
    found = context.scene.server()
    if not found:
        return None
    for process in found:
        processes.send(process, signal.SIGKILL)
    if context.draw.random() < 0.5:
        context.scene.start_server()
        return Blow("mlflow", "server, restarted at once")
    return Blow("mlflow", "server, back at the end", after=[context.scene.start_server])


def _disk(context: Context) -> Blow | None:
    """Fill the disk; there is room again when the attempt has ended."""
    filler = context.scene.storage / "filler"
    try:
        with filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(2**16))
    except OSError:
        pass
    return Blow("disk", "no room left", after=[filler.unlink])


def _checkpoint(context: Context) -> Blow | None:
    """Kill everything and cut the newest checkpoint."""
    found = _checkpoints(context.scene)
    if not found:
        return None
    lost = context.unsaved(processes.named("trial") + context.driver())
    stop_driver(context.scene)
    left = _checkpoints(context.scene)
    if not left:
        return Blow("driver", "all processes; the checkpoint was gone", lost, ends=True)
    newest = max(left, key=lambda path: path.stat().st_mtime)
    data = newest.read_bytes()
    newest.write_bytes(data[: context.draw.randrange(len(data))])
    return Blow("checkpoint", str(newest.relative_to(context.scene.storage)), lost, ends=True)


def _checkpoints(scene: Scene) -> list[Path]:
    return list(scene.storage.glob("work/*/checkpoint.pt"))


def _data(context: Context) -> Blow | None:
    """Kill everything and damage a file of images: cut it, or turn bits in its middle."""
    files = sorted(context.scene.storage.glob("data/face-????????????????/*.parquet"))
    if not files:
        return None
    lost = context.unsaved(processes.named("trial") + context.driver())
    stop_driver(context.scene)
    victim = context.draw.choice(files)
    data = bytearray(victim.read_bytes())
    at = context.draw.randrange(len(data) // 4, len(data) // 2)
    if context.draw.random() < 0.5:
        del data[at:]
    else:
        data[at : at + 16] = bytes(byte ^ 0xFF for byte in data[at : at + 16])
    victim.write_bytes(data)
    return Blow("data", victim.name, lost, ends=True)


def _pause(context: Context) -> Blow | None:
    """Stop a process for a while."""
    kinds = {kind: processes.named(kind) for kind in ("trial", "raylet", "head")}
    kinds |= {"driver": context.driver(), "server": context.scene.server()}
    kind = context.draw.choice([kind for kind, found in kinds.items() if found] or ["none"])
    if kind == "none":
        return None
    victim = context.draw.choice(kinds[kind])
    if not processes.send(victim, signal.SIGSTOP):
        return None
    time.sleep(context.pause)
    processes.send(victim, signal.SIGCONT)
    return Blow("pause", f"{kind} for {context.pause:g} s")


FAULTS: dict[str, Fault] = {
    "trial": _trial,
    "train_worker": _train_worker,
    "notice": _notice,
    "raylet": _raylet,
    "node": _node,
    "driver": _driver,
    "head": _head,
    "mlflow": _mlflow,
    "disk": _disk,
    "checkpoint": _checkpoint,
    "data": _data,
    "pause": _pause,
}

VARIANTS = {
    "train_worker": Variant(workers=2),
    "node": Variant(cluster=True),
    "mlflow": Variant(server=True),
    "disk": Variant(tmpfs=True),
}
"""What a fault needs; the others need nothing special."""

ANYWHERE = ("trial", "notice", "driver", "checkpoint", "data", "pause")
"""Faults that may come on top of any other."""
