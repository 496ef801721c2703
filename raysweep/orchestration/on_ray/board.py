"""What the workers of a training have to say, brought to the driver."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import ray

from raysweep.orchestration.compute.worker import Progress

LOG = logging.getLogger(__name__)


class _Postbox:
    """Holds the newest progress of a run, and its warnings."""

    def __init__(self) -> None:
        self.newest: Progress | None = None
        self.warnings: dict[str, None] = {}  # every worker has the same to say

    def post(self, progress: Progress) -> None:
        self.newest = progress

    def warn(self, text: str) -> None:
        self.warnings[text] = None

    def read(self) -> tuple[Progress | None, list[str]]:
        return self.newest, list(self.warnings)


class Board:
    """Passes progress and warnings on to the driver while a block runs.

    Entering returns the actor to which workers ``post`` progress, and whom they ``warn``.

    Attributes:
        furthest: last step of which the driver has heard.
    """

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.furthest = 0
        self.postbox: Any = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)
        self.seen: Progress | None = None
        self.told = 0

    def __enter__(self) -> Any:
        self.postbox = ray.remote(num_cpus=0, max_restarts=-1)(_Postbox).remote()
        self.thread.start()
        return self.postbox

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _poll(self) -> None:
        while not self.over.wait(1.0):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            newest, warnings = ray.get(self.postbox.read.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):  # its node died; it comes back empty
            self.told = 0
            return
        for text in warnings[self.told :]:
            LOG.warning("%s", text)
        self.told = len(warnings)
        if newest is not None and newest != self.seen:
            self.seen = newest
            self.furthest = max(self.furthest, newest.step)
            self.report(newest)
