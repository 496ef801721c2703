"""Notice to leave: a process that is told to end saves its work first.

Spot machines and cluster schedulers send SIGTERM some seconds before they take a machine away.
Training loops run in threads, and only the main thread hears of signals: what reaches it is
passed on to the loop, which saves at the end of its window, and only then the process ends.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import time
from types import FrameType

import torch

from raysweep import collective

GRACE_SECONDS = 25.0
"""Most seconds for which the end of the process is held back; clouds give 30 or more."""

_running: list[Notice] = []


class LeftError(BaseException):
    """The process was told to end; what it computed is in its checkpoint.

    It is no ``Exception``: no failure of the trial, which goes on elsewhere.
    """


class Notice:
    """Whether this process is to leave; use as a context manager around a loop.

    Ray ends the process of a trial with ``SystemExit`` in the main thread: exit handlers run
    while the loop's thread still does.
    """

    def __init__(self) -> None:
        self._asked, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> Notice:
        _running.append(self)
        atexit.register(self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        atexit.unregister(self._hold)
        _running.remove(self)

    def ask(self) -> None:
        """Ask the loop to save and leave."""
        self._asked.set()

    def given(self) -> bool:
        """Return whether any worker of the run has been asked; all workers must call it."""
        asked = torch.tensor(float(self._asked.is_set()))
        return float(collective.mean(asked)) > 0

    def leave(self, seconds: float) -> None:
        """Ask the loop to save and leave, and wait for that, no longer than ``seconds``."""
        self.ask()
        self._over.wait(max(0.0, seconds))

    def _hold(self) -> None:
        self.leave(GRACE_SECONDS)


def leave_running(seconds: float) -> None:
    """Ask the loops of this process to save and leave; wait for that, ``seconds`` at most."""
    until = time.monotonic() + seconds
    for notice in tuple(_running):
        notice.leave(until - time.monotonic())


def heed_sigterm() -> None:
    """Let SIGTERM ask the running loop to leave; for processes whose main thread is idle.

    To be called in the main thread. Where no loop runs, SIGTERM does what it did before.
    """
    before = signal.getsignal(signal.SIGTERM)

    def heed(number: int, frame: FrameType | None) -> None:
        for notice in _running:
            notice.ask()
        if not _running and callable(before):
            before(number, frame)
        elif not _running:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, heed)
