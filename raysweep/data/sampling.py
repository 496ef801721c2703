"""Which images make up the batch of a step: a pure function of seed and step.

Epochs are seeded permutations laid end to end, so every image is seen once per epoch, batches may
cross the border between two epochs, and a resumed run needs no position but its step.
"""

from __future__ import annotations

import torch

from raysweep import rng


def batch_indices(
    step: int, *, count: int, batch: int, seed: int, rank: int = 0, workers: int = 1
) -> torch.Tensor:
    """Return this worker's share of the global batch of a step.

    Args:
        step: number of batches taken before this one.
        count: number of images in the set.
        batch: global batch size over all workers.
        seed: seed of the order.
        rank: this worker's index.
        workers: number of workers; must divide ``batch``.

    Returns:
        ``(batch / workers,)`` int64 indices into the set.

    Raises:
        ValueError: the set is empty or ``workers`` does not divide ``batch``.
    """
    if count < 1:
        raise ValueError("cannot draw a batch from an empty set")
    if batch % workers:
        raise ValueError(f"batch = {batch}: must be divisible by the number of workers, {workers}")
    share = batch // workers
    start = step * batch + rank * share
    positions = torch.arange(start, start + share)
    epochs = positions // count
    indices = torch.empty_like(positions)
    for epoch in epochs.unique().tolist():
        order = torch.randperm(count, generator=rng.generator(seed, "order", int(epoch)))
        chosen = epochs == epoch
        indices[chosen] = order[positions[chosen] % count]
    return indices
