"""Steps in parts: how a batch is taken, not what is computed from it.

A step in p parts on one worker is the step of p workers that share the batch: the same gradients,
except that what is computed over a batch (batch-norm statistics, minibatch standard deviation) is
computed over a part, and running averages of batch norm move once a part. Only one part's
activations are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Metrics = dict[str, torch.Tensor]

_COUNT: ContextVar[int] = ContextVar("parts of a step", default=1)


@contextmanager
def batches(count: int) -> Iterator[None]:
    """Let the steps inside take their batch in ``count`` parts; other threads are not affected.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"parts = {count}: a batch is taken in 1 part or more")
    token = _COUNT.set(count)
    try:
        yield
    finally:
        _COUNT.reset(token)


def parts(rows: int, *, least: int = 1, group: int = 1) -> list[slice]:
    """Return consecutive slices of this worker's rows: as many as asked for, as equal as can be.

    Args:
        rows: number of this worker's rows.
        least: rows in a part, at least, unless there are fewer in all; then there are fewer parts.
            2 for networks with batch norm in training.
        group: consecutive rows that share their statistics, 1 or no fewer than ``least``. Where
            there are as many groups as parts, groups stay whole; else no part is larger than one.
    """
    count = _COUNT.get()
    whole_groups = rows % group == 0 and count <= rows // group
    unit = group if whole_groups else 1
    pieces = max(1, min(count, rows // least))
    ends = [rows // unit * index // pieces * unit for index in range(pieces + 1)]
    return [slice(start, end) for start, end in zip(ends, ends[1:], strict=False)]


def rows_at_once(most: int) -> int:
    """Return the rows of a forward pass without gradient; ``most`` where there is one part."""
    return max(1, most // _COUNT.get())


def accumulate(
    parts: Sequence[slice],
    loss_of: Callable[[slice], tuple[torch.Tensor, Metrics]],
    *,
    wrapped: nn.Module | None = None,
) -> Metrics:
    """Add the gradient of the mean over all rows to the parameters, a part at a time.

    Args:
        parts: as from :func:`parts`.
        loss_of: runs the network on a part; returns the mean loss of its rows, and metrics that are
            means over its rows as well, without gradient.
        wrapped: the network that ``loss_of`` runs; if it is data-parallel, workers communicate in
            the last part only.

    Returns:
        The metrics' means over all rows.
    """
    found = []
    for part in parts:
        weight = (part.stop - part.start) / parts[-1].stop
        with _silent(wrapped) if part is not parts[-1] else nullcontext():
            loss, metrics = loss_of(part)
            torch.autograd.backward(loss * weight)
        del loss  # what is left of the graph goes before the next part builds its own
        found.append({name: value * weight for name, value in metrics.items()})
    total, *others = found
    for other in others:
        total = {name: value + other[name] for name, value in total.items()}
    return total


def _silent(wrapped: nn.Module | None) -> AbstractContextManager[None]:
    if isinstance(wrapped, DistributedDataParallel):
        silent: AbstractContextManager[None] = wrapped.no_sync()
        return silent
    return nullcontext()
