"""Latent projection: schedules, distances and regulariser pixel by pixel; Adam spelt out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

Plane = list[list[float]]


def learning_rate(step: int, *, steps: int, peak: float, ramp_up: float, ramp_down: float) -> float:
    """Ramps of a fraction of the steps; a ramp of length 0 is none."""
    t = step / steps
    rate = peak
    if t < ramp_up:
        rate *= t / ramp_up
    if 1 - t < ramp_down:
        rate *= (1 - math.cos(math.pi * (1 - t) / ramp_down)) / 2
    return rate


def disturbance(step: int, *, steps: int, factor: float, ramp: float) -> float:
    """In units of the spread of the latents."""
    t = step / steps
    return factor * (1 - t / ramp) ** 2 if t < ramp else 0.0


def halved(plane: Plane) -> Plane:
    """Means of 2x2 pixels; an odd last row or column is left out."""
    return [
        [
            (
                plane[2 * y][2 * x]
                + plane[2 * y][2 * x + 1]
                + plane[2 * y + 1][2 * x]
                + plane[2 * y + 1][2 * x + 1]
            )
            / 4
            for x in range(len(plane[0]) // 2)
        ]
        for y in range(len(plane) // 2)
    ]


def regulariser(maps: Sequence[Plane]) -> float:
    """Of the noise maps of one image."""
    total = 0.0
    for plane in maps:
        level = plane
        while True:
            size = len(level)
            across = down = 0.0
            for y in range(size):
                for x in range(size):
                    across += level[y][x] * level[y][(x - 1) % size]
                    down += level[y][x] * level[(y - 1) % size][x]
            total += (across / size**2) ** 2 + (down / size**2) ** 2
            if size <= 8:
                break
            level = halved(level)
    return total


def renormalised(plane: Plane) -> Plane:
    """Zero mean, unit variance."""
    values = [value for row in plane for value in row]
    mean = sum(values) / len(values)
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [[(value - mean) / std for value in row] for row in plane]


def squared_difference(a: Sequence[Plane], b: Sequence[Plane]) -> float:
    """Mean over channels and pixels."""
    pairs = [
        (u, v)
        for p, q in zip(a, b, strict=True)
        for r, s in zip(p, q, strict=True)
        for u, v in zip(r, s, strict=True)
    ]
    return sum((u - v) ** 2 for u, v in pairs) / len(pairs)


def pyramid(a: list[Plane], b: list[Plane]) -> float:
    """Summed over sizes down to the last of two pixels or more."""
    total = squared_difference(a, b)
    while min(len(a[0]), len(a[0][0])) // 2 >= 2:
        a, b = [halved(plane) for plane in a], [halved(plane) for plane in b]
        total += squared_difference(a, b)
    return total


def feature_term(a: Sequence[Plane], b: Sequence[Plane]) -> float:
    """One map's part of the distance: unit channels, sum over channels, mean over pixels."""
    height, width, total = len(a[0]), len(a[0][0]), 0.0
    for y in range(height):
        for x in range(width):
            p, q = ([plane[y][x] for plane in maps] for maps in (a, b))
            long_p, long_q = (math.sqrt(sum(v * v for v in values)) for values in (p, q))
            total += sum((u / long_p - v / long_q) ** 2 for u, v in zip(p, q, strict=True))
    return total / (height * width)


def descend(
    loss: Callable[[int, list[torch.Tensor]], torch.Tensor],
    found: list[torch.Tensor],
    rates: Sequence[float],
    after: Callable[[list[torch.Tensor]], list[torch.Tensor]],
) -> tuple[list[torch.Tensor], list[float]]:
    """Adam with betas 0.9 and 0.999 on what is found; ``after`` repairs it after each step."""
    first = [torch.zeros_like(x) for x in found]
    second = [torch.zeros_like(x) for x in found]
    losses = []
    for step, rate in enumerate(rates):
        leaves = [x.clone().requires_grad_() for x in found]
        value = loss(step, leaves)
        losses.append(float(value.detach()))
        for i, grad in enumerate(torch.autograd.grad(value, leaves)):
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.999 * second[i] + 0.001 * grad**2
            mean = first[i] / (1 - 0.9 ** (step + 1))
            scale = (second[i] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            found[i] = found[i] - rate * mean / scale
        found = after(found)
    return found, losses
