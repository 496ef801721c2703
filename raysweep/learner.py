"""The contract of everything that is trained.

A learner is a plain class with three members; there is no base class and no registry. Its
constructor is ``(config, *, device, wrap=identity)``, where ``wrap`` receives each module that is
trained through ``backward()`` (the distributed worker passes its data-parallel wrapper). It trains
in one CPU process without any launcher. Everything that changes is in ``state_dict``: save, load
and continue equals straight through, bit for bit on CPU.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import nn

Batch = dict[str, torch.Tensor]
BatchT = TypeVar("BatchT", contravariant=True)


class Learner(Protocol[BatchT]):
    """One optimiser step at a time, with all state open to the caller."""

    def step(self, batch: BatchT) -> dict[str, torch.Tensor]:
        """Update once; return scalars to log (0-dimensional tensors, already detached)."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""


def identity(module: nn.Module) -> nn.Module:
    """Return the module itself: the ``wrap`` of a single process."""
    return module
