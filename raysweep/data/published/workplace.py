"""The hidden directory in which an import is made, and who may write in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from raysweep.config import ConfigError
from raysweep.data.published.archives import SPOOL_SUFFIX

ENTRY_SUFFIX = ".rows.json"
ORIGIN_NAME = "origin.txt"
WRITERS_NAME = "writers.lock"
WAIT_SECONDS = 60.0


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Yield a directory that becomes ``target`` if the block succeeds.

    If the source is refused, nothing stays. Whatever else ends the block, finished files stay, and
    the next attempt goes on with them.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not empty; choose another or remove it")
    aside = target.with_name(f".{target.name}.partial")
    aside.mkdir(parents=True, exist_ok=True)
    handle = os.open(aside, os.O_RDONLY)  # the lock goes with the process, however it ends
    try:
        _lock(handle, target)
        try:
            yield aside
            aside.rename(target)  # an empty directory of that name is replaced
        except ConfigError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _lock(handle: int, target: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{target}: another import is writing it; wait for it") from None


def hold(directory: Path) -> IO[str]:
    """Keep later imports waiting until this process ends or closes what is returned.

    A process that outlives the import that started it must not write beside the next one.
    """
    handle = (directory / WRITERS_NAME).open("w")
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def await_writers(directory: Path) -> None:
    """Wait until no process holds the directory.

    Raises:
        ConfigError: one does so for a minute.
    """
    with (directory / WRITERS_NAME).open("w") as handle:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{directory}: processes of an earlier import still run; end them"
                    ) from None
                time.sleep(0.05)


def adopt(directory: Path, origin: str) -> None:
    """Remove what an interrupted import left unfinished, or all of it if it was another."""
    place = directory / ORIGIN_NAME
    known = place.exists() and place.read_text() == origin
    for path in directory.iterdir():
        if path.suffix != SPOOL_SUFFIX and (path.suffix == ".tmp" or not known):
            path.unlink()
    place.write_text(origin)


def tidy(directory: Path) -> None:
    """Remove what only the making needed."""
    for path in directory.iterdir():
        known = path.name in (ORIGIN_NAME, WRITERS_NAME)
        if known or path.name.endswith((SPOOL_SUFFIX, ENTRY_SUFFIX)):
            path.unlink()
