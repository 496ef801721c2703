"""Signed distances to simple shapes: negative inside, in the units of the coordinates.

Coordinates are ``(x, y)`` pairs of arrays that broadcast to ``(image, height, width)``; y points
down. Shapes combine by minimum (union), maximum (intersection) and ``maximum(a, -b)`` (carve).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysweep.data.render.draws import Field

Scalar = Field | float
Points = tuple[Field, Field]
Pair = tuple[Scalar, Scalar]

TINY = 1e-6  # keeps the ellipse finite at its centre and the polygon at coinciding corners


def rotate(points: Points, *, angle: Field) -> Points:
    """Return the coordinates in a frame turned by ``angle`` radians."""
    x, y = points
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def ellipse(points: Points, *, centre: Pair, radii: Pair) -> Field:
    """Approximate distance to an ellipse, exact to first order at its edge.

    The implicit function ``|p/r| - 1`` over the length of its gradient.
    """
    x, y = (points[0] - centre[0]) / radii[0], (points[1] - centre[1]) / radii[1]
    level = np.sqrt(x * x + y * y) + TINY
    x, y = x / radii[0], y / radii[1]
    slope = np.sqrt(x * x + y * y) + TINY
    distance: Field = level * (level - 1) / slope
    return distance


def box(points: Points, *, centre: Pair, half: Pair, corner: float = 0.0) -> Field:
    """Distance to an upright rectangle of half sizes ``half`` with corner radius ``corner``."""
    x = np.abs(points[0] - centre[0]) - half[0] + corner
    y = np.abs(points[1] - centre[1]) - half[1] + corner
    outside_x, outside_y = np.maximum(x, 0), np.maximum(y, 0)
    outside = np.sqrt(outside_x * outside_x + outside_y * outside_y)
    distance: Field = outside + np.minimum(np.maximum(x, y), 0) - corner
    return distance


def capsule(points: Points, *, start: Pair, end: Pair, radius: Scalar) -> Field:
    """Distance to a thick line with round ends."""
    x, y = points[0] - start[0], points[1] - start[1]
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + TINY), 0, 1)
    x, y = x - along * dx, y - along * dy
    distance: Field = np.sqrt(x * x + y * y) - radius
    return distance


def polygon(points: Points, *, corners: Sequence[Pair]) -> Field:
    """Distance to a convex polygon: the farthest of its half planes (exact except at corners).

    Args:
        points: coordinates.
        corners: clockwise as seen, with y pointing down.
    """
    edges = zip(corners, [*corners[1:], corners[0]], strict=True)
    planes = []
    for (x0, y0), (x1, y1) in edges:
        across, down = y1 - y0, x0 - x1
        length = np.sqrt(across * across + down * down) + TINY
        planes.append(((points[0] - x0) * across + (points[1] - y0) * down) / length)
    distance = planes[0]
    for plane in planes[1:]:
        distance = np.maximum(distance, plane)
    return distance
