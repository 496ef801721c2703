"""Keep the terminal for the user: what libraries print goes to a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


def console() -> Console:
    """Return a console on standard output; lines are never broken where there is no terminal."""
    return Console(highlight=False, markup=False, soft_wrap=not sys.stdout.isatty())


@contextmanager
def quiet(log: Path) -> Iterator[Console]:
    """Send file descriptors 1 and 2 to ``log`` for a block; yield a console to the terminal.

    What the package itself warns of is shown. Libraries print through C code and from threads, so
    the redirection is at the level of the operating system. The log is appended to: a resumed run
    keeps the earlier part.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    with os.fdopen(os.dup(kept[0]), "w", buffering=1) as stream, warnings.catch_warnings():
        warnings.simplefilter("default")
        is_terminal = os.isatty(kept[0])
        screen = Console(file=stream, highlight=False, markup=False, soft_wrap=not is_terminal)
        try:
            with passing_on(lambda text: screen.print(f"note: {text}")):
                yield screen
        finally:
            with contextlib.suppress(OSError):  # the log's disk may be full
                sys.stdout.flush()
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)


@contextmanager
def passing_on(tell: Callable[[str], None]) -> Iterator[None]:
    """Hand the warnings that the package logs to ``tell`` for a block, in the thread that logs."""
    teller, log = _Teller(tell), logging.getLogger("raysweep")
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)


class _Teller(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(record.getMessage())


def clock(seconds: float) -> str:
    """Return ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Throttle:
    """Says whether enough time has passed since it last said yes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = -seconds

    def ready(self) -> bool:
        """Return True at most once per interval."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True
