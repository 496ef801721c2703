"""Updates of several networks in turn: phases as data, and what workers share in an update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from raysweep import collective
from raysweep.learner import Batch

Found = tuple[torch.Tensor, Sequence[torch.Tensor]]
"""A loss and the gradients of a network's parameters, of this worker's images."""


class Phase(NamedTuple):
    """A kind of update.

    Attributes:
        name: in logs and messages.
        network: what is updated.
        interval: steps per update; the last of them updates.
        first: steps taken before the phase begins.
        end: steps taken before it is over.
        find: loss and gradients for a batch; None draws new weights instead.
    """

    name: str
    network: nn.Module
    interval: int
    first: int
    end: float
    find: Callable[[Batch], Found] | None

    def due(self, step: int) -> bool:
        """Return whether the phase updates after ``step`` steps."""
        return self.first <= step < self.end and (step - self.first + 1) % self.interval == 0


def descend(
    found: Found, *, phase: Phase, optimizer: torch.optim.Optimizer, step: int
) -> torch.Tensor:
    """Update along the gradients of all workers; elements that are not finite are cut.

    Returns:
        The mean loss of the workers.

    Raises:
        FloatingPointError: it is not finite; names the phase and the step. Nothing is updated.
    """
    loss = collective.mean(found[0].detach())
    if not loss.isfinite():
        raise FloatingPointError(
            f"{phase.name} loss is {loss.item()} at step {step}; lower annotator_lr or segmentor_lr"
        )
    for parameter, gradient in zip(phase.network.parameters(), found[1], strict=True):
        parameter.grad = collective.mean_gradient(gradient)
    optimizer.step()
    optimizer.zero_grad()
    return loss


@torch.no_grad()
def share_statistics(networks: Iterable[nn.Module]) -> None:
    """Average batch-norm statistics over the workers, so that all label alike."""
    if collective.size() == 1:
        return
    for network in networks:
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(collective.mean(buffer))
