"""Distillation by loops, from the definitions: soft labels, loss, order of rows, networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn


def quantised(pixel: Sequence[float], top: int, levels: int = 255) -> dict[int, int]:
    """Class to whole number for one pixel: largest remainder over the likeliest classes."""
    exact = [Fraction(p) for p in pixel]
    kept = sorted(range(len(exact)), key=lambda c: (-exact[c], c))[:top]
    total = sum(exact[c] for c in kept)
    shares = {c: exact[c] / total * levels for c in kept}
    whole = {c: math.floor(share) for c, share in shares.items()}
    by_remainder = sorted(kept, key=lambda c: whole[c] - shares[c])
    for c in by_remainder[: levels - sum(whole.values())]:
        whole[c] += 1
    return whole


def soft_loss(logits: list[Any], targets: list[Any]) -> float:
    """Mean over images and pixels of -sum p log q; both (batch, classes, height, width)."""
    total, pixels = 0.0, 0
    for scores, truth in zip(logits, targets, strict=True):
        for y in range(len(scores[0])):
            for x in range(len(scores[0][0])):
                normaliser = math.log(sum(math.exp(plane[y][x]) for plane in scores))
                for plane, wanted in zip(scores, truth, strict=True):
                    total -= wanted[y][x] * (plane[y][x] - normaliser)
                pixels += 1
    return total / pixels


def epoch_order(
    file_rows: Sequence[int],
    file_order: Sequence[int],
    *,
    batch: int,
    window: int,
    shuffled: Callable[[int, int, list[Any]], list[Any]],
) -> list[list[tuple[int, int]]]:
    """Batches of (file, row): lanes of the line of rows, each mixed window by window.

    ``shuffled(lane, window number, rows)`` returns the rows of a window in their order.
    """
    line = [(file, row) for file in file_order for row in range(file_rows[file])]
    steps = len(line) // batch
    lanes = []
    for lane in range(batch):
        own = line[lane * steps : (lane + 1) * steps]
        mixed = []
        for number, start in enumerate(range(0, steps, window)):
            mixed += shuffled(lane, number, own[start : start + window])
        lanes.append(mixed)
    return [[lane[step] for lane in lanes] for step in range(steps)]


def doubled(image: torch.Tensor) -> torch.Tensor:
    """(batch, channel, h, w) to twice the size, bilinear, the corner pixels staying corners."""

    def place(at: int, old: int) -> tuple[int, int, float]:
        where = at * (old - 1) / (2 * old - 1)
        return int(where), min(int(where) + 1, old - 1), where - int(where)

    batch, channels, height, width = image.shape
    out = image.new_zeros(batch, channels, 2 * height, 2 * width)
    for i in range(2 * height):
        top, bottom, down = place(i, height)
        for j in range(2 * width):
            left, right, across = place(j, width)
            above = image[..., top, left] * (1 - across) + image[..., top, right] * across
            below = image[..., bottom, left] * (1 - across) + image[..., bottom, right] * across
            out[..., i, j] = above * (1 - down) + below * down
    return out


class PlainUnet(nn.Module):
    """The papers' U-Net for three levels, every layer written out."""

    def __init__(self, a: int, b: int, c: int, num_classes: int) -> None:
        super().__init__()
        sizes = [(3, a), (a, a), (a, b), (b, b), (b, c), (c, c)]  # down
        sizes += [(b + c, a), (a, a), (a + a, a), (a, a)]  # up
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 3, padding=1) for i, o in sizes])
        self.norms = nn.ModuleList([nn.BatchNorm2d(o) for _, o in sizes])
        self.classes = nn.Conv2d(a, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to scores of the same size."""

        def two(x: torch.Tensor, first: int) -> torch.Tensor:
            for at in (first, first + 1):
                x = torch.relu(self.norms[at](self.convs[at](x)))
            return x

        def joined(skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
            large = doubled(below)
            framed = torch.zeros(*large.shape[:2], *skip.shape[2:], dtype=large.dtype)
            y = (skip.shape[2] - large.shape[2]) // 2
            x = (skip.shape[3] - large.shape[3]) // 2
            framed[:, :, y : y + large.shape[2], x : x + large.shape[3]] = large
            return torch.cat((skip, framed), 1)

        one = two(images, 0)
        half = two(nn.functional.max_pool2d(one, 2), 2)
        quarter = two(nn.functional.max_pool2d(half, 2), 4)
        up = two(joined(half, quarter), 6)
        out: torch.Tensor = self.classes(two(joined(one, up), 8))
        return out


def dilated(image: torch.Tensor, weight: torch.Tensor, rate: int) -> torch.Tensor:
    """(channel, h, w) through a k x k convolution without bias whose taps are rate apart."""
    _, height, width = image.shape
    reach = weight.shape[-1] // 2
    out = image.new_zeros(len(weight), height, width)
    for y in range(height):
        for x in range(width):
            for i in range(weight.shape[-2]):
                for j in range(weight.shape[-1]):
                    v, u = y + (i - reach) * rate, x + (j - reach) * rate
                    if 0 <= v < height and 0 <= u < width:
                        out[:, y, x] += weight[:, :, i, j] @ image[:, v, u]
    return out


def pyramid(
    image: torch.Tensor, weights: Sequence[torch.Tensor], rates: Sequence[int], shrink: float
) -> torch.Tensor:
    """ASPP of one map (channel, h, w) before dropout; weights in torchvision's order.

    ``shrink`` is what an untouched batch norm in eval mode multiplies by.
    """

    def block(x: torch.Tensor, weight: torch.Tensor, rate: int = 1) -> torch.Tensor:
        return torch.relu(dilated(x, weight, rate) * shrink)

    narrow, *wide, pooled, project = weights
    branches = [block(image, narrow)]
    branches += [block(image, weight, rate) for weight, rate in zip(wide, rates, strict=True)]
    mean = image.mean((1, 2), keepdim=True)
    branches.append(block(mean, pooled).expand(-1, *image.shape[1:]))
    return block(torch.cat(branches), project)
