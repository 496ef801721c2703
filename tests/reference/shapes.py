"""Distances to shapes by searching their outlines, one point at a time."""

from __future__ import annotations

import math

Point = tuple[float, float]


def to_segment(point: Point, start: Point, end: Point) -> float:
    """Search the segment in small steps."""
    steps = 4000
    return min(
        math.dist(
            point,
            (
                start[0] + (end[0] - start[0]) * step / steps,
                start[1] + (end[1] - start[1]) * step / steps,
            ),
        )
        for step in range(steps + 1)
    )


def to_box(point: Point, *, centre: Point, half: Point) -> float:
    left, right = centre[0] - half[0], centre[0] + half[0]
    top, bottom = centre[1] - half[1], centre[1] + half[1]
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    nearest = min(
        to_segment(point, a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
    )
    inside = left < point[0] < right and top < point[1] < bottom
    return -nearest if inside else nearest


def to_ellipse(point: Point, *, centre: Point, radii: Point) -> float:
    steps = 20000
    nearest = min(
        math.dist(
            point,
            (
                centre[0] + radii[0] * math.cos(2 * math.pi * step / steps),
                centre[1] + radii[1] * math.sin(2 * math.pi * step / steps),
            ),
        )
        for step in range(steps)
    )
    x, y = (point[0] - centre[0]) / radii[0], (point[1] - centre[1]) / radii[1]
    return -nearest if x * x + y * y < 1 else nearest
