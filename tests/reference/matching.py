"""Gradient matching written out, pixel by pixel and weight by weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def cosine_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Return 1 - cos; norms below 1e-6 count as 1e-6."""
    product = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = [max(math.sqrt(sum(x * x for x in each)), 1e-6) for each in (a, b)]
    return 1 - product / (lengths[0] * lengths[1])


def distance(ours: list[torch.Tensor], theirs: list[torch.Tensor], *, all_count: bool) -> float:
    """Return the distance of two gradients; ``all_count`` counts tensors with one axis too."""
    total, with_rows = 0.0, 0
    for a, b in zip(ours, theirs, strict=True):
        if a.dim() == 1:
            continue
        with_rows += 1
        rows = [
            cosine_distance(a[unit].flatten().tolist(), b[unit].flatten().tolist())
            for unit in range(a.shape[0])
        ]
        total += sum(rows) / len(rows)
    return total / (len(ours) if all_count else with_rows)


def head_gradient(
    weight: torch.Tensor, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return (1 / N) sum over pixels of (softmax(W f) - a) f^T, without bias or resize."""
    batch, _, height, width = features.shape
    total = torch.zeros_like(weight)
    for image in range(batch):
        for y in range(height):
            for x in range(width):
                f = features[image, :, y, x]
                p = (weight @ f).softmax(0)
                total += torch.outer(p - labels[image, :, y, x], f)
    return total / (batch * height * width)


class PlainFpn(nn.Module):
    """The decoder with two hidden convolutions, three levels, every layer by name."""

    def __init__(self, channels: tuple[int, int, int], width: int, num_classes: int) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = (nn.Conv2d(c, width, 1) for c in channels)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.classes = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(
        self, fine: torch.Tensor, middle: torch.Tensor, coarse: torch.Tensor
    ) -> torch.Tensor:
        """Return logits at the size of the finest map."""
        x = self.coarse(coarse)
        x = nn.Upsample(size=middle.shape[-2:], mode="bilinear")(x) + self.middle(middle)
        x = nn.Upsample(size=fine.shape[-2:], mode="bilinear")(x) + self.fine(fine)
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        out: torch.Tensor = self.classes(x)
        return out


def update_steps(steps: int, interval: int, *, before: int = 0) -> list[int]:
    """Return the 0-based steps in which a network that waits ``interval`` steps is updated."""
    due, waited = [], 0
    for step in range(before, steps):
        waited += 1
        if waited == interval:
            due.append(step)
            waited = 0
    return due
