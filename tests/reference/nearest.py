"""Crop, nearest-neighbour resize and flip of one mask, pixel by pixel."""

from __future__ import annotations

import math
from fractions import Fraction


def crop_mask(
    mask: list[list[int]], *, box: tuple[int, int, int, int], flip: bool, px: int
) -> list[list[int]]:
    """Read the label under the centre of each output pixel."""
    top, left, height, width = box
    out = []
    for i in range(px):
        y = top + math.floor(Fraction(2 * i + 1, 2 * px) * height)
        row = [mask[y][left + math.floor(Fraction(2 * j + 1, 2 * px) * width)] for j in range(px)]
        out.append(row[::-1] if flip else row)
    return out
