"""Annotators as their sources list them, and one pixel MLP fitted by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

# name: rows of (channels out, taps, dilation), C for the number of classes; slope of the leaky ReLU
CNNS: dict[tuple[str, bool], tuple[list[tuple[int | str, int, int]], float]] = {
    ("cnn_s", False): (
        [(128, 3, 1), (64, 3, 2), (64, 3, 1), (32, 3, 2), ("C", 3, 1)],
        0.2,
    ),
    ("cnn_m", False): (
        [
            (128, 3, 1),
            (64, 3, 2),
            (64, 3, 4),
            (64, 3, 1),
            (64, 3, 2),
            (32, 3, 4),
            ("C", 3, 1),
        ],
        0.2,
    ),
    ("cnn_l", False): (
        [
            (128, 3, 1),
            (64, 3, 2),
            (64, 3, 4),
            (64, 3, 8),
            (64, 3, 1),
            (64, 3, 2),
            (64, 3, 4),
            (32, 3, 8),
            ("C", 3, 1),
        ],
        0.2,
    ),
    ("cnn_l", True): (
        [
            (128, 1, 1),
            (64, 3, 2),
            (64, 3, 4),
            (64, 3, 8),
            (64, 3, 1),
            (64, 3, 2),
            (64, 3, 4),
            (32, 3, 8),
            ("C", 3, 1),
        ],
        0.01,
    ),
}


def receptive_field(name: str, released: bool) -> int:
    """Side in px of what an output pixel sees."""
    rows, _ = CNNS[name, released]
    return 1 + sum((taps - 1) * dilation for _, taps, dilation in rows)


def plain_cnn(
    channels: int, widths: Sequence[int], num_classes: int, *, name: str, released: bool
) -> nn.Sequential:
    """The CNN on a materialised hypercolumn, with the hidden widths given."""
    rows, slope = CNNS[name, released]
    layers: list[nn.Module] = []
    inputs = channels
    for out, (_, taps, dilation) in zip([*widths, num_classes], rows, strict=True):
        padding = (taps // 2) * dilation
        layers.append(nn.Conv2d(inputs, out, taps, padding=padding, dilation=dilation))
        layers.append(nn.LeakyReLU(slope))
        inputs = out
    return nn.Sequential(*layers[:-1])


def plain_mlp(
    channels: int, widths: Sequence[int], num_classes: int, *, norm: bool
) -> nn.Sequential:
    """The MLP on rows of pixels ``(pixels, channels)``; batch norm after the ReLU, or none."""
    layers: list[nn.Module] = []
    inputs = channels
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        layers += [nn.BatchNorm1d(width)] if norm else []
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def load(plain: nn.Sequential, tensors: dict[str, torch.Tensor]) -> None:
    """Give ``plain`` the tensors of an annotator, which lists its layers in the same order."""
    own = plain.state_dict()
    values = iter(tensors.values())
    plain.load_state_dict({name: next(values).reshape(own[name].shape) for name in own})


class Alone:
    """One pixel MLP, its optimiser, and the rule that ends its training."""

    def __init__(self, net: nn.Sequential, *, lr: float, pixels: int, patience: int) -> None:
        self.net, self.pixels, self.patience = net, pixels, patience
        self.optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        self.seen = 0  # pixels
        self.best, self.count = math.inf, 0
        self.stopped = False

    def step(self, features: torch.Tensor, labels: torch.Tensor) -> float:
        """One update unless training has ended."""
        if self.stopped:
            return math.nan
        loss = nn.functional.cross_entropy(self.net(features), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        if self.seen // self.pixels > 3:
            if value < self.best:
                self.best, self.count = value, 0
            else:
                self.count += 1
            self.stopped = self.count > self.patience
        self.seen += len(features)
        return value
