"""Resizing by loops, from the definitions."""

import math

import numpy as np


def _triangle_weights(old: int, new: int, place: int) -> list[tuple[int, float]]:
    """Weights of source pixels for one target pixel: a triangle as wide as the reduction."""
    scale = old / new
    centre, support = (place + 0.5) * scale, max(scale, 1.0)
    weights = []
    for source in range(old):
        weight = max(0.0, 1 - abs(source + 0.5 - centre) / support)
        if weight:
            weights.append((source, weight))
    total = sum(weight for _, weight in weights)
    return [(source, weight / total) for source, weight in weights]


def antialiased(image: np.ndarray, px: int) -> np.ndarray:
    """(height, width, 3) to (px, px, 3), in floating point."""
    height, width, _ = image.shape
    out = np.zeros((px, px, 3))
    for y in range(px):
        for x in range(px):
            for source_y, weight_y in _triangle_weights(height, px, y):
                for source_x, weight_x in _triangle_weights(width, px, x):
                    out[y, x] += weight_y * weight_x * image[source_y, source_x]
    return out


def nearest(mask: np.ndarray, px: int) -> np.ndarray:
    """(height, width) to (px, px): the label under the centre of each target pixel."""
    height, width = mask.shape
    out = np.zeros((px, px), dtype=mask.dtype)
    for y in range(px):
        for x in range(px):
            row = math.floor((y + 0.5) * height / px)
            column = math.floor((x + 0.5) * width / px)
            out[y, x] = mask[row, column]
    return out
