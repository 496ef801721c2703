"""Signs of life of whoever computes a stage, so that a wait for a frozen process has an end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import pyarrow.fs as pafs

from raysweep.orchestration.store.storage import Storage, write_atomically

SILENCE_SECONDS = float(os.environ.get("RAYSWEEP_SILENCE_SECONDS", "600"))
"""A wait for a process that shows no life for so long ends with an error."""

BEAT_SECONDS = 15.0


class StuckError(RuntimeError):
    """Who computes a stage has shown no life for too long."""


class Pulse:
    """A small file that is written again and again while a process is at work on something.

    Args:
        storage: seen by everybody who may wait.
        names: of the file; it says which process writes it.
    """

    def __init__(self, storage: Storage, *names: str) -> None:
        self.storage, self.path = storage, storage.path(*names)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # there is none if it was all done in a moment
            self.storage.fs.delete_file(self.path)

    def _beat(self) -> None:
        text = f"process {os.getpid()} on {socket.gethostname()}"
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a full disk is found by what has to be stored
                self._write(text.encode())

    def _write(self, data: bytes) -> None:
        if self.storage.is_local:  # a process that is frozen while it writes leaves the old file
            write_atomically(Path(self.path), data)
            return
        with self.storage.fs.open_output_stream(self.path) as stream:
            stream.write(data)


class Patience:
    """What is left of a wait for somebody else's :class:`Pulse`.

    Args:
        storage: where it is.
        names: of its file.
        seconds: how long it may stand still.
    """

    def __init__(self, storage: Storage, *names: str, seconds: float | None = None) -> None:
        self.storage, self.path = storage, storage.path(*names)
        self.seconds = SILENCE_SECONDS if seconds is None else seconds
        self._last: object = None
        self._since = time.monotonic()

    def check(self, what: str) -> None:
        """Go on waiting.

        Args:
            what: is being waited for.

        Raises:
            StuckError: there was no sign of life for too long.
        """
        found = self.storage.fs.get_file_info(self.path)
        if found.mtime_ns != self._last:  # clocks of machines differ: only changes count
            self._last, self._since = found.mtime_ns, time.monotonic()
        silent = time.monotonic() - self._since
        if silent > self.seconds:
            raise StuckError(
                f"{what} is being computed by {self._who(found)}, which has shown no life for "
                f"{silent:.0f} s; end that process, and the same command goes on"
            )

    def _who(self, found: pafs.FileInfo) -> str:
        if found.type != pafs.FileType.File:
            return "another process"
        with self.storage.fs.open_input_stream(self.path) as stream:
            return str(stream.read().decode())
