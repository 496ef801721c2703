"""What a trial on one device takes of the cluster, and the device that it gets."""

from __future__ import annotations

from dataclasses import dataclass

import ray
import torch

CONTEXT_BYTES = 600 * 2**20
"""What a process takes of a GPU beside its tensors: CUDA's context and libraries."""


@dataclass(frozen=True)
class Gpus:
    """What the user says of GPUs.

    Attributes:
        count: GPUs to count on; those that are up if left out. An autoscaler starts machines only
            when something waits for them.
        share: of a GPU, per trial; 0.25 lets four trials share one.
    """

    count: int | None = None
    share: float = 1.0


WHOLE_GPUS = Gpus()
"""Those that are up, one per trial."""


@dataclass(frozen=True)
class Slots:
    """What a single-device trial takes, and how many run at a time.

    Attributes:
        resources: a core and, if there are any, a GPU or a share of one.
        count: of trials side by side.
    """

    resources: dict[str, float]
    count: int

    @classmethod
    def of_cluster(cls, gpus: Gpus) -> Slots:
        """Return the slots of the cluster that this process has joined."""
        up = ray.cluster_resources()
        count = int(up.get("GPU", 0)) if gpus.count is None else gpus.count
        if count:
            together = int(1 / gpus.share + 1e-9)
            return cls({"cpu": 1.0, "gpu": gpus.share}, count * together)
        return cls({"cpu": 1.0}, max(1, int(up.get("CPU", 1))))


def device_here() -> torch.device:
    """Return the accelerator given to this process, else the CPU with one thread.

    One thread per worker: side by side they are faster than one worker with many, and results do
    not depend on the machine's number of cores. Of a shared GPU the process can allocate no more
    than its share: more is an error here, not in one of the others.
    """
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    share = 1.0
    if ray.is_initialized():
        share = ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(memory_fraction(share))
    return torch.device("cuda")


def memory_fraction(share: float) -> float:
    """Return which part of a GPU's memory tensors may take, for a process with a share of it."""
    _, whole = torch.cuda.mem_get_info()
    return max(share - CONTEXT_BYTES / whole, share / 2)
