"""Single flight where the storage has no locks: one on the machine, and a name on the cluster.

Object stores have no locks. The name of a Ray actor is unique in a cluster, and an actor dies with
the process that made it, so a killed trial never leaves a stage locked.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from filelock import FileLock, Timeout


class _Holder:
    """Holds a name and nothing else."""


class ActorLock:
    """A lock across a Ray cluster, with the subset of ``filelock.FileLock`` that is used here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder: Any = None

    def acquire(self, *, timeout: float) -> None:
        """Take the name, or raise ``filelock.Timeout`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        options = {"name": self.name, "namespace": "raysweep", "num_cpus": 0}
        while True:
            try:
                # the cluster has the name when this returns; the process behind it may come later
                self._holder = ray.remote(_Holder).options(**options).remote()
                return
            except ValueError:  # the name is taken
                if time.monotonic() > deadline:
                    raise Timeout(self.name) from None
                time.sleep(0.1)

    def release(self) -> None:
        """Give the name back, if it was taken."""
        if self._holder is not None:
            ray.kill(self._holder)
            self._holder = None


class ClusterLock:
    """Keeps out the processes of this machine and, where Ray runs, those of its cluster.

    Two clusters, or two machines without Ray, may compute the same stage at the same time: they
    store the same files.

    Args:
        on_machine: a lock on the local disk, whose working directory of the stage it guards too.
        on_cluster: used if this process belongs to a cluster.
    """

    def __init__(self, on_machine: FileLock, on_cluster: ActorLock) -> None:
        self.on_machine, self.on_cluster = on_machine, on_cluster

    def acquire(self, *, timeout: float) -> None:
        """Take both, or raise ``filelock.Timeout`` after about ``timeout`` seconds."""
        self.on_machine.acquire(timeout=timeout)
        try:
            if ray.is_initialized():
                self.on_cluster.acquire(timeout=timeout)
        except BaseException:
            self.on_machine.release()
            raise

    def release(self) -> None:
        """Give both back."""
        self.on_cluster.release()
        self.on_machine.release()
