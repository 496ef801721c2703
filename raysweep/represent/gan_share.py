"""This worker's images of a phase of StyleGAN training, in parts (:mod:`raysweep.micro`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Drawn = TypeVar("Drawn")


class Share:
    """What the parts of a phase have in common, and which rows are in work.

    Args:
        parts: rows of this worker's images; one part by default.

    Attributes:
        rows: the part in work.
    """

    def __init__(self, parts: Sequence[slice] = (slice(None),)) -> None:
        self.parts, self.rows = parts, parts[0]
        self._drawn: dict[str, Any] = {}
        self._cut: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def divided(self) -> bool:
        """Whether there are several parts."""
        return len(self.parts) > 1

    def once(self, name: str, draw: Callable[[], Drawn]) -> Drawn:
        """Return what ``draw`` returned when it was first asked for under this name.

        One part asks once, so nothing is kept for it.
        """
        if not self.divided:
            return draw()
        if name not in self._drawn:
            self._drawn[name] = draw()
        drawn: Drawn = self._drawn[name]
        return drawn

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor whose rows several parts read, cut off from the graph that made it.

        Each part's backward pass frees its graph, and this one is needed by all of them. Their
        gradients are collected until :meth:`finish`.
        """
        if not (self.divided and tensor.requires_grad):
            return tensor
        leaf = tensor.detach().requires_grad_()
        self._cut.append((tensor, leaf))
        return leaf

    def finish(self) -> None:
        """Pass the gradients of all parts on to what made the tensors that were cut off."""
        for tensor, leaf in self._cut:
            torch.autograd.backward(tensor, leaf.grad)
