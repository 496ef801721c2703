"""The augmentation pipeline point by point, pixel by pixel, from figure 15 of the ADA paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

Plane = Sequence[Sequence[float]]  # row, column
Point = tuple[float, float]  # x to the right, y down, from the centre
Strengths = dict[str, float]


def turn(point: Point, angle: float) -> Point:
    x, y = point
    return (
        x * math.cos(angle) - y * math.sin(angle),
        x * math.sin(angle) + y * math.cos(angle),
    )


def move(point: Point, s: Strengths) -> Point:
    """Where a point of the original ends up."""
    x, y = point
    if s["flip"] == 1:
        x = -x
    for _ in range(int(s["quarters"])):
        x, y = -y, x
    x, y = x + s["whole_x"], y + s["whole_y"]
    x, y = x * s["scale"], y * s["scale"]
    x, y = turn((x, y), s["pre"])
    x, y = x * s["stretch"], y / s["stretch"]
    x, y = turn((x, y), s["post"])
    return x + s["shift_x"], y + s["shift_y"]


def unmove(point: Point, s: Strengths) -> Point:
    """Which point of the original ends up here."""
    x, y = point[0] - s["shift_x"], point[1] - s["shift_y"]
    x, y = turn((x, y), -s["post"])
    x, y = x / s["stretch"], y * s["stretch"]
    x, y = turn((x, y), -s["pre"])
    x, y = x / s["scale"], y / s["scale"]
    x, y = x - s["whole_x"], y - s["whole_y"]
    for _ in range(int(s["quarters"])):
        x, y = y, -x
    return (-x, y) if s["flip"] == 1 else (x, y)


def recolour(pixel: Sequence[float], s: Strengths) -> list[float]:
    """One pixel after brightness, contrast, luma flip, hue rotation, saturation."""
    p = [s["contrast"] * (value + s["brightness"]) for value in pixel]
    if s["luma_flip"] == 1:
        mean = sum(p) / 3
        p = [value - 2 * mean for value in p]
    mean, (r, g, b) = sum(p) / 3, p
    cos, sin = math.cos(s["hue"]), math.sin(s["hue"]) / math.sqrt(3)
    turned = ((r, b - g), (g, r - b), (b, g - r))  # value, its part of gray x pixel
    p = [mean + cos * (value - mean) + sin * cross for value, cross in turned]
    return [mean + s["saturation"] * (value - mean) for value in p]


def reflect(index: int, size: int) -> int:
    """Walk back and forth between 0 and size - 1."""
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


def warp(plane: Plane, s: Strengths, taps: Sequence[float]) -> list[list[float]]:
    """Upsample with H(1/z), interpolate at the moved positions, downsample with H(z)."""
    height, width, count = len(plane), len(plane[0]), len(taps)
    centre = sum(k * tap for k, tap in enumerate(taps)) / sum(taps)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    known: dict[tuple[int, int], float] = {}

    def fine(row: int, column: int) -> float:
        if (row, column) not in known:
            total = 0.0
            for a in range(row % 2, count, 2):
                for b in range(column % 2, count, 2):
                    y, x = reflect((row + a) // 2, height), reflect((column + b) // 2, width)
                    total += taps[a] * taps[b] * plane[y][x]
            known[row, column] = total
        return known[row, column]

    def moved(row: int, column: int) -> float:
        here = ((column + centre) / 2 - middle_x, (row + centre) / 2 - middle_y)
        x, y = unmove(here, s)
        u, v = 2 * (x + middle_x) - centre, 2 * (y + middle_y) - centre
        left, top = math.floor(u), math.floor(v)
        right_share, bottom_share = u - left, v - top
        upper = fine(top, left) * (1 - right_share) + fine(top, left + 1) * right_share
        lower = fine(top + 1, left) * (1 - right_share) + fine(top + 1, left + 1) * right_share
        return upper * (1 - bottom_share) + lower * bottom_share

    rows, columns = range(1 - count, 2 * height - 1), range(1 - count, 2 * width - 1)
    samples = {(row, column): moved(row, column) for row in rows for column in columns}
    out = [[0.0] * width for _ in range(height)]
    for i in range(height):
        for j in range(width):
            for a, tap_a in enumerate(taps):
                for b, tap_b in enumerate(taps):
                    out[i][j] += tap_a * tap_b * samples[2 * i - a, 2 * j - b]
    return out


def steer(
    logits: Sequence[Sequence[float]],
    *,
    p: float,
    target: float,
    interval: int,
    speed_kimg: float,
    maximum_p: float | None,
) -> list[float]:
    """Value of p after each discriminator step, given its answers to the real images."""
    trace, positive, negative, images = [], 0, 0, 0
    for step, answers in enumerate(logits, start=1):
        for answer in answers:
            positive += answer > 0
            negative += answer < 0
            images += 1
        if step % interval == 0:
            r = (positive - negative) / images
            change = images / (1000 * speed_kimg)
            if r > target:
                p = p + change
            elif r < target:
                p = max(0.0, p - change)
            if maximum_p is not None:
                p = min(p, maximum_p)
            positive, negative, images = 0, 0, 0
        trace.append(p)
    return trace
