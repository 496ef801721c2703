"""Rank, size, gather, mean over the workers of a run; the identity when there is one process."""

from __future__ import annotations

import torch
import torch.distributed as dist

LARGEST_GRADIENT = 1e5


def active() -> bool:
    """Return whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this worker's index, 0 without a process group."""
    return dist.get_rank() if active() else 0


def size() -> int:
    """Return the number of workers, 1 without a process group."""
    return dist.get_world_size() if active() else 1


def own(count: int) -> slice:
    """Return this worker's rows of a batch of ``count`` that all workers share in rank order.

    Raises:
        ValueError: the workers cannot share it evenly.
    """
    if count % size():
        raise ValueError(f"{count} rows cannot be shared evenly by {size()} workers")
    share = count // size()
    return slice(rank() * share, (rank() + 1) * share)


def share(whole: torch.Tensor) -> torch.Tensor:
    """Return this worker's rows of what was drawn for all workers."""
    return whole[own(len(whole))]


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate equally shaped tensors of all workers along axis 0, in rank order.

    No gradient flows through it.

    Args:
        tensor: ``(batch, ...)`` on every worker.

    Returns:
        ``(workers * batch, ...)``, the same on every worker.
    """
    if not active():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def mean_gradient(gradient: torch.Tensor) -> torch.Tensor:
    """Return the mean over the workers; what is not finite becomes 0 or +-1e5.

    So do the official codes of StyleGAN2 and LAGM before an update.
    """
    return mean(gradient).nan_to_num(0.0, LARGEST_GRADIENT, -LARGEST_GRADIENT)


def mean(tensor: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over the workers."""
    if not active():
        return tensor
    # NCCL knows only tensors on the GPU; a scalar to be logged may be on the CPU
    carried = tensor.cuda() if dist.get_backend() == "nccl" else tensor
    total = carried.clone()
    dist.all_reduce(total)
    return (total / size()).to(tensor.device)
