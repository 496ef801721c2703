"""LPIPS with VGG16, pixel by pixel (Zhang et al. 2018; constants of the published code)."""

from __future__ import annotations

import math

Plane = list[list[float]]

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LAYERS = ((2, 0), (2, 5), (3, 10), (3, 17), (3, 24))
"""Convolutions of a block, and the place of its first one; the next are two places further."""


def convolved(maps: list[Plane], weight: list, bias: list[float]) -> list[Plane]:
    """3x3, zero padding, ReLU."""
    height, width = len(maps[0]), len(maps[0][0])
    out = []
    for kernel, offset in zip(weight, bias, strict=True):
        plane = [[offset] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                for channel, level in enumerate(maps):
                    for i in range(3):
                        for j in range(3):
                            v, u = y + i - 1, x + j - 1
                            if 0 <= v < height and 0 <= u < width:
                                plane[y][x] += kernel[channel][i][j] * level[v][u]
        out.append([[max(value, 0.0) for value in row] for row in plane])
    return out


def pooled(plane: Plane) -> Plane:
    """Maxima of 2x2 pixels."""
    return [
        [
            max(plane[2 * y + i][2 * x + j] for i in (0, 1) for j in (0, 1))
            for x in range(len(plane[0]) // 2)
        ]
        for y in range(len(plane) // 2)
    ]


def taps(image: list[Plane], tensors: dict[str, list]) -> list[list[Plane]]:
    """The last ReLU of each block for an image in [-1, 1]."""
    x = [
        [[(value - SHIFT[c]) / SCALE[c] for value in row] for row in plane]
        for c, plane in enumerate(image)
    ]
    found = []
    for block, (count, first) in enumerate(LAYERS):
        if block:
            x = [pooled(plane) for plane in x]
        for index in range(count):
            name = f"features.{first + 2 * index}"
            x = convolved(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        found.append(x)
    return found


def lpips(a: list[Plane], b: list[Plane], tensors: dict[str, list]) -> float:
    """Of one pair of images."""
    total = 0.0
    for block, (p, q) in enumerate(zip(taps(a, tensors), taps(b, tensors), strict=True)):
        height, width = len(p[0]), len(p[0][0])
        linear = [one[0][0] for one in tensors[f"lin{block}"][0]]
        apart = 0.0
        for y in range(height):
            for x in range(width):
                u, v = ([plane[y][x] for plane in maps] for maps in (p, q))
                long_u, long_v = (math.sqrt(sum(t * t for t in w)) + 1e-10 for w in (u, v))
                for weight, s, t in zip(linear, u, v, strict=True):
                    apart += weight * (s / long_u - t / long_v) ** 2
        total += apart / (height * width)
    return total
