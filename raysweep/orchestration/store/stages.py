"""The stage store: what was computed once is never computed again.

A stage's key hashes *what* it computes (its config, its inputs' keys, the dataset's fingerprint,
its code version), never *how* it is run. A finished stage is a directory
``stages/<name>/<key>/`` that appears whole or not at all; a half-done one keeps its last
checkpoint under ``work/`` and resumes from it. One process at a time computes a stage.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from filelock import FileLock, Timeout

from raysweep.config import digest
from raysweep.orchestration.store import checkpoints
from raysweep.orchestration.store.checkpoints import BEFORE, NEWEST, DamagedError
from raysweep.orchestration.store.cost import Stopwatch, git_revision
from raysweep.orchestration.store.locks import ActorLock, ClusterLock
from raysweep.orchestration.store.pulse import Patience, Pulse
from raysweep.orchestration.store.storage import Storage, write_atomically

DONE = "DONE"


@dataclass(frozen=True, eq=False)
class Stage:
    """What a stage computes.

    Attributes:
        name: ``pretrain``, ``fit`` or ``evaluate``.
        config: the settings that matter to the result, as plain JSON data.
        inputs: role to key: keys of earlier stages, the fingerprint of the dataset.
        version: number of the code; raised when a change of code changes results.
    """

    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the result."""
        return digest(
            {
                "name": self.name,
                "config": dict(self.config),
                "inputs": dict(self.inputs),
                "version": self.version,
            }
        )

    @property
    def place(self) -> tuple[str, str, str]:
        """Names of the finished directory below the storage root."""
        return ("stages", self.name, self.key)

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Workspace:
    """Where one process computes one stage: files, a checkpoint, and the final commit."""

    def __init__(self, stage: Stage, storage: Storage) -> None:
        self.stage, self.storage = stage, storage
        self.names = ("work", f"{stage.name}-{stage.key}")
        self.path = storage.local(*self.names)
        self.path.mkdir(parents=True, exist_ok=True)
        self.stopwatch = Stopwatch()
        self._uploaded: dict[Path, tuple[int, int]] = {}

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Store the state to resume from, atomically; the time spent so far goes with it.

        The files written so far are stored too: another machine may be the one that goes on.
        """
        checkpoints.save(self.path, state, seconds=self.stopwatch.seconds)
        if not self.storage.is_local:
            self._upload_changes()

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last stored state, or None when the stage starts afresh.

        A checkpoint that cannot be read is set aside with a warning; the one before takes its
        place, if there is one.
        """
        if not self.storage.is_local and has_checkpoint(self.storage, self.names):
            copies = self.storage.fetch(self.path, *self.names)
            self._uploaded = {file: _state(file) for file in copies}
        for name in (NEWEST, BEFORE):
            try:
                state, seconds = checkpoints.load(self.path, name)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                checkpoints.set_aside(self.path, name, of=self.stage, why=error)
                if not self.storage.is_local and self.storage.exists(*self.names, name):
                    self.storage.fs.delete_file(self.storage.path(*self.names, name))
                continue
            self.stopwatch.add(seconds)
            return state
        return None

    def commit(self, metrics: Mapping[str, Any]) -> None:
        """Publish the files written into :attr:`path` together with ``stage.json``.

        The checkpoint goes last: a kill before the publication still finds it.
        """
        record = {
            "name": self.stage.name,
            "key": self.stage.key,
            "version": self.stage.version,
            "config": dict(self.stage.config),
            "inputs": dict(self.stage.inputs),
            "metrics": dict(metrics),
            "cost": self.stopwatch.cost(),
            "git_revision": git_revision(),
        }
        text = json.dumps(record, indent=1, sort_keys=True)
        write_atomically(self.path / "stage.json", text.encode())
        write_atomically(self.path / DONE, b"")
        for leftover in self.path.glob("*.tmp"):  # of a write that a kill cut short
            leftover.unlink()
        if self.storage.is_local:
            final = Path(self.storage.path(*self.stage.place))
            final.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(final)
            for name in (BEFORE, NEWEST):
                (final / name).unlink(missing_ok=True)
            return
        for file in self._files(last=DONE):
            if file.name not in (BEFORE, NEWEST):
                self._upload(file, *self.stage.place)
        shutil.rmtree(self.path)
        self.storage.delete(*self.names)

    def _files(self, *, last: str) -> list[Path]:
        found = [path for path in self.path.rglob("*") if path.is_file() and path.suffix != ".tmp"]
        return sorted(found, key=lambda path: (path == self.path / last, path))

    def _upload(self, file: Path, *names: str) -> None:
        self.storage.upload(file, *names, *file.relative_to(self.path).parts)

    def _upload_changes(self) -> None:
        """Store what is new since the last checkpoint, which comes last: it needs the others."""
        before = self.path / BEFORE
        if before.exists() and self.storage.exists(*self.names, NEWEST):  # it is there already
            names = [self.storage.path(*self.names, name) for name in (NEWEST, BEFORE)]
            self.storage.fs.copy_file(*names)
            self._uploaded[before] = _state(before)
        for file in self._files(last=NEWEST):
            if self._uploaded.get(file) != _state(file):
                self._upload(file, *self.names)
                self._uploaded[file] = _state(file)


def has_checkpoint(storage: Storage, names: tuple[str, ...]) -> bool:
    """Return whether a work directory has a checkpoint to resume from."""
    return any(storage.exists(*names, name) for name in (NEWEST, BEFORE))


def _state(file: Path) -> tuple[int, int]:
    """Return what changes when a file is replaced."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ino


class StageStore:
    """Finished and half-done stages under one storage root."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def done(self, stage: Stage) -> bool:
        """Return whether the stage has been computed."""
        return self.storage.exists(*stage.place, DONE)

    def started(self, stage: Stage) -> bool:
        """Return whether a half-done stage has a checkpoint to resume from."""
        return has_checkpoint(self.storage, ("work", f"{stage.name}-{stage.key}"))

    def directory(self, stage: Stage) -> Path:
        """Return a local directory with the files of a finished stage."""
        return self.directory_of(stage.name, stage.key)

    def directory_of(self, name: str, key: str) -> Path:
        """Return a local directory with the files of a finished stage, given name and key.

        Raises:
            FileNotFoundError: there is no such finished stage.
        """
        if not self.storage.exists("stages", name, key, DONE):
            raise FileNotFoundError(f"stage {name}/{key} is not finished in {self.storage.uri}")
        return self.storage.download("stages", name, key)

    def finished(self, name: str) -> list[str]:
        """Return the keys of all finished stages of that name, sorted."""
        folder = self.storage.path("stages", name)
        found = self.storage.fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        keys = sorted(entry.base_name for entry in found)
        return [key for key in keys if self.storage.exists("stages", name, key, DONE)]

    def record(self, stage: Stage) -> dict[str, Any]:
        """Return ``stage.json`` of a finished stage: config, inputs, metrics, cost, revision.

        Raises:
            FileNotFoundError: the stage is not finished.
        """
        with self.storage.fs.open_input_stream(
            self.storage.path(*stage.place, "stage.json")
        ) as stream:
            record: dict[str, Any] = json.loads(stream.read())
        return record

    @contextmanager
    def claim(
        self, stage: Stage, *, waiting: Callable[[], None] | None = None
    ) -> Iterator[Workspace | None]:
        """Enter alone: yield a workspace, or None when the stage is (or became) finished.

        Args:
            stage: what to compute.
            waiting: called about once a second while another process computes the stage.

        Raises:
            StuckError: the other process has shown no life for ten minutes
                (``RAYSWEEP_SILENCE_SECONDS``).
        """
        if self.done(stage):
            yield None
            return
        lock, pulse = self._lock(stage), ("work", f"{stage.name}-{stage.key}.alive")
        patience = Patience(self.storage, *pulse)
        while True:
            try:
                lock.acquire(timeout=1.0)
                break
            except Timeout:
                patience.check(str(stage))
                if waiting is not None:
                    waiting()
        try:
            with Pulse(self.storage, *pulse):
                yield None if self.done(stage) else Workspace(stage, self.storage)
        finally:
            lock.release()

    def _lock(self, stage: Stage) -> FileLock | ClusterLock:
        place = self.storage.local("work", f"{stage.name}-{stage.key}.lock")
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.storage.is_local:
            return FileLock(place)
        name = f"raysweep-{digest(self.storage.uri)}-{stage.name}-{stage.key}"
        return ClusterLock(FileLock(place), ActorLock(name))
