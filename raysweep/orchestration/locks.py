"""Single flight where there is no file locking: a named Ray actor per stage.

Object stores have no locks. The name of a Ray actor is unique in a cluster, and an actor dies with
the process that made it, so a killed trial never leaves a stage locked.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from filelock import Timeout


class _Holder:
    """Holds a name and nothing else."""

    def ping(self) -> bool:
        return True


class ActorLock:
    """The subset of ``filelock.FileLock`` that the stage store uses, across a Ray cluster."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder: Any = None

    def acquire(self, *, timeout: float) -> None:
        """Take the name, or raise ``filelock.Timeout`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                options = {"name": self.name, "namespace": "raysweep", "num_cpus": 0}
                self._holder = ray.remote(_Holder).options(**options).remote()
                ray.get(self._holder.ping.remote())
                return
            except ValueError:  # the name is taken
                if time.monotonic() > deadline:
                    raise Timeout(self.name) from None
                time.sleep(0.1)

    def release(self) -> None:
        """Give the name back."""
        ray.kill(self._holder)
        self._holder = None
