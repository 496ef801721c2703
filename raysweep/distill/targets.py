"""What a student is trained on: hard and soft labels that move with their images; the soft loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from raysweep.data.joint import JointDraw, move_planes, swap_pairs
from raysweep.distill.soft import LEVELS


class Targets(NamedTuple):
    """Labels of a batch.

    Attributes:
        mask: ``(batch, height, width)`` int64 labels.
        classes: ``(batch, kept, height, width)`` int64, of the soft labels; None without.
        probabilities: ``(batch, kept, height, width)`` float32, adding up to 1; None without.
    """

    mask: torch.Tensor
    classes: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None


def apply_targets(
    mask: torch.Tensor,
    soft: torch.Tensor | None,
    draw: JointDraw,
    *,
    px: int,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> Targets:
    """Move labels as :func:`raysweep.data.joint.move_images` moves the image.

    Each pixel takes the nearest labels.

    Args:
        mask: ``(batch, height, width)`` uint8.
        soft: ``(batch, 2, kept, height, width)`` uint8 of
            :func:`raysweep.distill.soft.quantise_soft`, if there are any.
        draw: one set of parameters per image.
        px: side of the result.
        flip_pairs: pairs of classes, left and right, that a flip exchanges.
    """
    moved = move_planes(mask[:, None], draw, px=px)
    if soft is None:
        return Targets(swap_pairs(moved, draw, flip_pairs)[:, 0])
    classes = move_planes(soft[:, 0], draw, px=px)
    swapped = swap_pairs(torch.cat([moved, classes], dim=1), draw, flip_pairs)
    probabilities = move_planes(soft[:, 1], draw, px=px).float() / LEVELS
    return Targets(swapped[:, 0], swapped[:, 1:], probabilities)


def soft_cross_entropy(
    logits: torch.Tensor, classes: torch.Tensor, probabilities: torch.Tensor
) -> torch.Tensor:
    """Return the mean over pixels of ``-sum_c p_c log softmax(logits)_c`` (ReGAN, auto-shot).

    Args:
        logits: ``(batch, classes, height, width)``.
        classes: ``(batch, kept, height, width)`` int64.
        probabilities: ``(batch, kept, height, width)``; 0 for classes that were not kept.
    """
    log_q = F.log_softmax(logits, dim=1).gather(1, classes)
    return -(probabilities * log_q).sum(1).mean()
