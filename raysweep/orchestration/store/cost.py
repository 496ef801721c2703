"""What a stage cost, and which code it ran: seconds, memory, device, git revision."""

from __future__ import annotations

import functools
import platform
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import torch


class Stopwatch:
    """Seconds of work on a stage, summed over all the processes that resumed it."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._before = 0.0

    def add(self, seconds: float) -> None:
        """Count work done before this process."""
        self._before += seconds

    @property
    def seconds(self) -> float:
        """Seconds of work so far."""
        return self._before + time.monotonic() - self._start

    def cost(self) -> dict[str, Any]:
        """Return seconds, peak memory in GiB and the device, for ``stage.json``."""
        cost: dict[str, Any] = {
            "seconds": round(self.seconds, 3),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "device": device_name(),
        }
        if torch.cuda.is_available():
            cost["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        return cost


def peak_memory_gib() -> float:
    """Return the largest resident size of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if platform.system() == "Darwin" else 2**20)


def device_name() -> str:
    """Return the name of the accelerator, or the kind of CPU with its core count."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}, 1 thread"


@functools.cache
def git_revision() -> str:
    """Return the revision of the checkout that is running, ``+`` when it has changes."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        revision = git("rev-parse", "--short=12", "HEAD")
        return revision + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
