"""Square crops around boxes, as LAGM cuts PASCAL-Part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raysweep.data.decoding import Bytes

MOST_OVERLAP = 0.05


class Box(NamedTuple):
    """A box of VOC: pixels counted from 1, both ends included."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Crop(NamedTuple):
    """A part of an image: pixels counted from 0, ends excluded; not always a square."""

    left: int
    top: int
    right: int
    bottom: int

    def __str__(self) -> str:
        return " ".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Crop:
        """Return the crop that ``str`` wrote."""
        return cls(*map(int, text.split()))


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union; extents are xmax - xmin, as in the released code."""
    width = max(0, min(one.xmax, other.xmax) - max(one.xmin, other.xmin))
    height = max(0, min(one.ymax, other.ymax) - max(one.ymin, other.ymin))
    areas = [(box.xmax - box.xmin) * (box.ymax - box.ymin) for box in (one, other)]
    return width * height / max(sum(areas) - width * height, 1e-8)


def small_or_crowded(boxes: Sequence[Box], place: int, *, least_side: int) -> str | None:
    """Return why a box is left out, None if it is not: it overlaps another, or is too small."""
    box = boxes[place]
    others = (other for at, other in enumerate(boxes) if at != place)
    if any(overlap(box, other) > MOST_OVERLAP for other in others):
        return "boxes that overlap"
    if min(box.xmax - box.xmin, box.ymax - box.ymin) + 1 < least_side:
        return "boxes too small"
    return None


def square(box: Box, *, height: int, width: int) -> Crop:
    """Return the square on the longer side of a box, clipped to the image.

    The centre is that of the box, shifted so that the box lies inside the image; ends are rounded
    down.
    """
    long = max(box.xmax - box.xmin + 1, box.ymax - box.ymin + 1)
    left, right = _span(box.xmin - 1, box.xmax, long=long, size=width)
    top, bottom = _span(box.ymin - 1, box.ymax, long=long, size=height)
    return Crop(left, top, right, bottom)


def padded(pixels: Bytes, crop: Crop) -> Bytes:
    """Cut ``(height, width, ...)`` pixels and pad with zeros, evenly, to a square."""
    part = pixels[crop.top : crop.bottom, crop.left : crop.right]
    height, width = part.shape[:2]
    side = max(height, width)
    out = np.zeros((side, side, *pixels.shape[2:]), dtype=pixels.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = part
    return out


def _span(start: int, stop: int, *, long: int, size: int) -> tuple[int, int]:
    half = (stop - start) / 2
    low, high = min(size / 2, half), max(size / 2, size - half)
    centre = min(max((start + stop) / 2, low), high)
    return int(max(centre - long / 2, 0)), int(min(centre + long / 2, size))
