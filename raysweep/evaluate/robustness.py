"""How far a model's score falls when what it sees is moved (GanOrCon figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from raysweep.evaluate.metrics import Absent, mean_iou

IGNORE = 255
"""Label of pixels whose truth is unknown: they were outside the image before it moved."""

Predict = Callable[[torch.Tensor], torch.Tensor]
"""Maps uint8 images ``(n, 3, h, w)`` to labels ``(n, h, w)``."""


class ShiftScore(NamedTuple):
    """One point of the curve: pixels to the right, and mIoU in [0, 1]."""

    shift: int
    miou: float


def shifted(
    images: torch.Tensor, masks: torch.Tensor, dx: int, dy: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move images and masks; images repeat their edge where nothing is known, masks ignore it.

    Args:
        images: ``(n, 3, h, w)`` uint8.
        masks: ``(n, h, w)`` uint8 labels.
        dx: pixels to the right; negative to the left.
        dy: pixels down; negative up.

    Returns:
        Both in the same shapes and types; uncovered pixels of masks are :data:`IGNORE`.

    Raises:
        ValueError: images and masks differ in size, or nothing of them would be left.
    """
    height, width = masks.shape[1:]
    if images.shape[0] != len(masks) or images.shape[2:] != masks.shape[1:]:
        raise ValueError(f"images are {tuple(images.shape)}, masks {tuple(masks.shape)}")
    if abs(dx) >= width or abs(dy) >= height:
        raise ValueError(
            f"shift ({dx}, {dy}): nothing is left of images of {width} x {height} px; choose less"
        )
    rows, columns = torch.arange(height) - dy, torch.arange(width) - dx
    y, x = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = masks[:, y][:, :, x].clone()
    moved[:, rows != y] = IGNORE
    moved[:, :, columns != x] = IGNORE
    return images[:, :, y][..., x], moved


def common_columns(shifts: Sequence[int], width: int) -> slice:
    """Return the columns of the content that stay within the image under every shift.

    Raises:
        ValueError: there is none.
    """
    columns = slice(max(0, -min(shifts)), width - max(0, max(shifts)))
    if columns.start >= columns.stop:
        raise ValueError(
            f"shifts from {min(shifts)} to {max(shifts)}: no column of {width} stays within the "
            "image under all of them; choose smaller ones"
        )
    return columns


def shift_curve(
    predict: Predict,
    images: torch.Tensor,
    masks: torch.Tensor,
    shifts: Sequence[int],
    num_classes: int,
    *,
    absent: Absent = "skip",
) -> list[ShiftScore]:
    """Score the predictions for images that are moved to the right.

    All shifts are scored on the same content: the columns that stay within the image under every
    shift. Otherwise a shift would also change what is scored.

    Args:
        predict: labels moved images.
        images: ``(n, 3, h, w)`` uint8.
        masks: ``(n, h, w)`` uint8 labels; :data:`IGNORE` is not scored.
        shifts: pixels; negative ones are to the left.
        num_classes: number of classes.
        absent: what a class counts that occurs neither in truth nor in prediction; a class may
            have lain in the columns that are not scored.

    Raises:
        ValueError: no column stays within the image under every shift.
    """
    columns = common_columns(shifts, masks.shape[2])
    scored = torch.full_like(masks, IGNORE)
    scored[:, :, columns] = masks[:, :, columns]
    curve = []
    for shift in shifts:
        moved, truth = shifted(images, scored, shift, 0)
        kept = truth != IGNORE
        labels = predict(moved).to(truth.device)
        miou = mean_iou(labels[kept][None], truth[kept][None], num_classes, absent=absent)
        curve.append(ShiftScore(shift, miou))
    return curve
