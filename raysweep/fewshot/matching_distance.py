"""How far two gradients of a network are apart (LAGM section 3.2, released training/loss.py).

Per output unit, ``1 - cos`` of the two gradients of its weights; the mean over the units of a
tensor; summed over tensors. A convolution's unit is one output channel, ``in x height x width``
weights. Biases and the scales and shifts of batch norms have no rows and contribute 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Normaliser = Literal["paper", "released"]
"""By what the sum is divided.

``paper``: the tensors that have rows, so that the distance is a mean over layers, from 0 to 2.
``released``: all matched tensors, those that contribute 0 as well: 8 of DeepLabV3's 23 head tensors
have rows, 19 of the U-Net's 74, so the annotator's steps are 0.35 and 0.26 times as long.
"""

EPS = 1e-6
"""Smaller norms are taken for this, so that vanishing gradients have a finite distance, 1."""


def unit_distance(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return the mean over output units of ``1 - cos``, from 0 to 2.

    Args:
        ours: ``(units, ...)``, two axes or more.
        theirs: the same shape.
    """
    a, b = ours.flatten(1), theirs.flatten(1)
    first = torch.linalg.vector_norm(a, dim=1).clamp(min=EPS)
    second = torch.linalg.vector_norm(b, dim=1).clamp(min=EPS)
    cosine: torch.Tensor = (a * b).sum(1) / (first * second)
    return (1 - cosine).mean()


def matching_distance(
    ours: Sequence[torch.Tensor],
    theirs: Sequence[torch.Tensor],
    *,
    normaliser: Normaliser,
    tensors: int | None = None,
) -> torch.Tensor:
    """Return the distance of two gradients, tensor by tensor.

    Args:
        ours: one tensor per parameter, of any number of axes.
        theirs: the same shapes in the same order.
        normaliser: by what the sum over tensors is divided.
        tensors: number of matched tensors, where those without rows were left out of the lists.

    Raises:
        ValueError: no tensor has rows, or the lists do not agree.
    """
    pairs = list(zip(ours, theirs, strict=True))
    rows = [(a, b) for a, b in pairs if a.dim() > 1]
    if not rows:
        raise ValueError("no matched tensor has two axes or more: there is no gradient to compare")
    total = torch.stack([unit_distance(a, b) for a, b in rows]).sum()
    counted = len(pairs) if tensors is None else tensors
    return total / (len(rows) if normaliser == "paper" else counted)
