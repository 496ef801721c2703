"""What a student is trained on: images with hard and soft labels, moved together; the soft loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from raysweep.data import colour, geometry
from raysweep.data.augment import MEAN, STD, JointConfig
from raysweep.distill.soft import LEVELS


class Draw(NamedTuple):
    """Random parameters of one augmentation of each image of a batch; see :func:`draw_joint`."""

    boxes: torch.Tensor
    flip: torch.Tensor
    jitter: colour.Jitter

    def part(self, rows: slice) -> Draw:
        """Return the parameters of some of the images."""
        jitter = {name: strength[rows] for name, strength in self.jitter.items()}
        return Draw(self.boxes[rows], self.flip[rows], jitter)


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


def draw_joint(
    count: int, *, height: int, width: int, config: JointConfig, generator: torch.Generator
) -> Draw:
    """Draw what :func:`raysweep.data.augment.joint` draws for ``count`` images, in its order."""
    boxes = geometry.draw_boxes(
        count,
        height=height,
        width=width,
        scale=config.crop_scale,
        ratio=config.ratio,
        generator=generator,
    )
    cropped, flip = (
        torch.rand(count, generator=generator) < p for p in (config.crop_p, config.flip_p)
    )
    boxes[~cropped] = torch.tensor([0, 0, height, width])
    jitter = colour.draw_jitter(
        count, strength=config.jitter, p=config.jitter_p, generator=generator
    )
    return Draw(boxes, flip, jitter)


def whole(count: int, *, height: int, width: int) -> Draw:
    """Return the parameters that leave ``count`` images as they are but for their size."""
    boxes = torch.tensor([0, 0, height, width]).repeat(count, 1)
    return Draw(boxes, torch.zeros(count, dtype=torch.bool), {})


def apply_images(images: torch.Tensor, draw: Draw, *, px: int) -> torch.Tensor:
    """Crop, resize, flip, jitter, normalise.

    Args:
        images: ``(batch, 3, height, width)`` uint8.
        draw: one set of parameters per image.
        px: side of the result.

    Returns:
        ``(batch, 3, px, px)`` float32, normalised by ImageNet's mean and std.
    """
    x = geometry.crop_resize(images, boxes=draw.boxes, flip=draw.flip, px=px) / 255
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, STD))
    return (colour.apply_jitter(x, draw.jitter) - mean) / std


def apply_targets(
    mask: torch.Tensor,
    soft: torch.Tensor | None,
    draw: Draw,
    *,
    px: int,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> Targets:
    """Move labels as :func:`apply_images` moves the image; each pixel takes the nearest labels.

    Args:
        mask: ``(batch, height, width)`` uint8.
        soft: ``(batch, 2, kept, height, width)`` uint8 of
            :func:`raysweep.distill.soft.quantise_soft`, if there are any.
        draw: one set of parameters per image.
        px: side of the result.
        flip_pairs: pairs of classes, left and right, that a flip exchanges.
    """
    moved = _move(mask[:, None], draw, px=px)
    if soft is None:
        return Targets(_swap(moved, draw.flip, flip_pairs)[:, 0])
    classes = _move(soft[:, 0], draw, px=px)
    swapped = _swap(torch.cat([moved, classes], dim=1), draw.flip, flip_pairs)
    probabilities = _move(soft[:, 1], draw, px=px).float() / LEVELS
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


def _move(planes: torch.Tensor, draw: Draw, *, px: int) -> torch.Tensor:
    # (batch, planes, height, width): the planes of an image move alike
    count = planes.shape[1]
    moved = geometry.crop_masks(
        planes.flatten(0, 1),
        boxes=draw.boxes.repeat_interleave(count, dim=0),
        flip=draw.flip.repeat_interleave(count),
        px=px,
    )
    return moved.reshape(-1, count, px, px)


def _swap(
    labels: torch.Tensor, flip: torch.Tensor, pairs: Sequence[tuple[int, int]]
) -> torch.Tensor:
    table = torch.arange(256)
    for left, right in pairs:
        table[left], table[right] = right, left
    labels, table = labels.long(), table.to(labels.device)
    return torch.where(flip.to(labels.device)[:, None, None, None], table[labels], labels)
