"""Joint augmentation of images and their labels.

Drawing the random parameters is apart from applying them: workers that share a batch draw for the
whole batch and apply their own part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raysweep.data import colour, geometry
from raysweep.data.augment import (
    CropAndJitterConfig,
    JitterStrength,
    Probability,
    Range,
    standardise,
)


class JointConfig(CropAndJitterConfig):
    """Augmentation of GanOrCon's projector training, by default as in its released code.

    Attributes:
        crop_p: probability of the crop; otherwise the whole image is resized.
    """

    crop_scale: Range = (0.6, 1.0)
    ratio: Range = (0.7, 1.3)
    crop_p: Probability = 0.5
    jitter: JitterStrength = (0.2, 0.2, 0.2, 0.0)
    jitter_p: Probability = 0.5
    flip_p: Probability = 0.5


@dataclass(frozen=True)
class JointDraw:
    """Random parameters of each image of a batch; see :func:`draw_joint`."""

    boxes: torch.Tensor
    flip: torch.Tensor
    jitter: colour.Jitter

    def part(self, rows: slice) -> JointDraw:
        """Return the parameters of some of the images."""
        jitter = {name: strength[rows] for name, strength in self.jitter.items()}
        return JointDraw(self.boxes[rows], self.flip[rows], jitter)


def draw_joint(
    count: int,
    *,
    height: int,
    width: int,
    config: JointConfig | None,
    generator: torch.Generator,
) -> JointDraw:
    """Draw the parameters for ``count`` images, of all workers that share the batch.

    Args:
        count: number of images.
        height: height of the images in px.
        width: width of the images in px.
        config: the augmentation; None only resizes.
        generator: source of randomness, on the CPU.
    """
    if config is None:
        boxes = torch.tensor([0, 0, height, width]).repeat(count, 1)
        return JointDraw(boxes, torch.zeros(count, dtype=torch.bool), {})
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
    return JointDraw(boxes, flip, jitter)


def move_images(images: torch.Tensor, draw: JointDraw, *, px: int) -> torch.Tensor:
    """Crop, resize, flip, jitter, normalise.

    Deviation from GanOrCon's released code: crops are taken from the images at their own size and
    resized once, instead of resizing to ``px``, cropping, and resizing again.

    Args:
        images: ``(batch, 3, height, width)`` uint8.
        draw: one set of parameters per image.
        px: side of the result.

    Returns:
        ``(batch, 3, px, px)`` float, normalised by ImageNet's mean and std.
    """
    x = geometry.crop_resize(images, boxes=draw.boxes, flip=draw.flip, px=px) / 255
    return standardise(colour.apply_jitter(x, draw.jitter))


def resized(images: torch.Tensor, *, px: int) -> torch.Tensor:
    """Return what :func:`move_images` makes of uint8 images that are only resized."""
    return move_images(images, _whole(images), px=px)


def resized_labels(masks: torch.Tensor, *, px: int) -> torch.Tensor:
    """Return masks ``(batch, px, px)`` int64 that belong to :func:`resized` images."""
    return move_planes(masks[:, None], _whole(masks), px=px)[:, 0].long()


def _whole(images: torch.Tensor) -> JointDraw:
    height, width = images.shape[-2:]
    boxes = torch.tensor([0, 0, height, width]).repeat(len(images), 1)
    return JointDraw(boxes, torch.zeros(len(images), dtype=torch.bool), {})


def move_planes(planes: torch.Tensor, draw: JointDraw, *, px: int) -> torch.Tensor:
    """Move label planes ``(batch, planes, height, width)`` as :func:`move_images` moves the image.

    Each pixel of the result, ``(batch, planes, px, px)``, takes the nearest value.
    """
    count = planes.shape[1]
    moved = geometry.crop_masks(
        planes.flatten(0, 1),
        boxes=draw.boxes.repeat_interleave(count, dim=0),
        flip=draw.flip.repeat_interleave(count),
        px=px,
    )
    return moved.reshape(-1, count, px, px)


def swap_pairs(
    labels: torch.Tensor, draw: JointDraw, pairs: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Exchange left and right in the flipped images.

    Args:
        labels: ``(batch, planes, height, width)`` class indices.
        draw: which images were flipped.
        pairs: classes that trade places.

    Returns:
        The same shape, int64.
    """
    table = torch.arange(256)
    for left, right in pairs:
        table[left], table[right] = right, left
    labels, table = labels.long(), table.to(labels.device)
    return torch.where(draw.flip.to(labels.device)[:, None, None, None], table[labels], labels)


def joint(
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    px: int,
    config: JointConfig,
    generator: torch.Generator,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment images together with their labels.

    Args:
        images: ``(batch, 3, height, width)`` uint8.
        masks: ``(batch, height, width)`` uint8 class indices.
        px: side of the result.
        config: the augmentation.
        generator: source of randomness, on the CPU.
        flip_pairs: pairs of classes, left and right, that a horizontal flip exchanges.

    Returns:
        Images ``(batch, 3, px, px)`` float, normalised by ImageNet's mean and std, and masks
        ``(batch, px, px)`` int64.

    Raises:
        ValueError: images and masks differ in number or size.
    """
    count, _, height, width = images.shape
    if masks.shape != (count, height, width):
        raise ValueError(
            f"masks = {tuple(masks.shape)}: expected {(count, height, width)} to match images"
        )
    draw = draw_joint(count, height=height, width=width, config=config, generator=generator)
    moved = move_planes(masks[:, None], draw, px=px)
    return move_images(images, draw, px=px), swap_pairs(moved, draw, flip_pairs)[:, 0]
