"""Bilinear resizing and convolution pixel by pixel, on nested lists and double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

Plane = Sequence[Sequence[float]]  # row, column


def sample(line: Sequence[float], at: int, px: int) -> float:
    """Value of output pixel ``at`` when ``line`` is stretched to ``px`` pixels."""
    size = len(line)
    centre = (at + 0.5) * size / px - 0.5
    centre = min(max(centre, 0.0), size - 1.0)
    left = math.floor(centre)
    right = min(left + 1, size - 1)
    return line[left] * (left + 1 - centre) + line[right] * (centre - left)


def resize(plane: Plane, height: int, width: int) -> list[list[float]]:
    """Bilinear, pixel centres at half integers, no antialiasing."""
    wide = [[sample(row, x, width) for x in range(width)] for row in plane]
    columns = [[row[x] for row in wide] for x in range(width)]
    return [[sample(column, y, height) for column in columns] for y in range(height)]


def convolve(planes: Sequence[Plane], weight: Sequence[Plane], bias: float) -> list[list[float]]:
    """One output channel of a zero-padded convolution; ``weight`` is channel, row, column."""
    height, width, reach = len(planes[0]), len(planes[0][0]), len(weight[0]) // 2
    out = [[bias] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            for plane, taps in zip(planes, weight, strict=True):
                for v, row in enumerate(taps):
                    for j, tap in enumerate(row):
                        i, k = y + v - reach, x + j - reach
                        if 0 <= i < height and 0 <= k < width:
                            out[y][x] += tap * plane[i][k]
    return out
