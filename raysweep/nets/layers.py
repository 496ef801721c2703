"""Layers that several projectors share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

NARROW = 16
"""Fewer input channels than this are narrow, see :func:`training_format`."""


def training_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Return the memory format in which a network can be trained: channels last where it is safe.

    On CPUs the backward pass of torch 2.15 for 1x1 convolutions of stride 2 on few channels reads
    and writes out of bounds in channels-last (a crash at 4 and 8 channels of 48 px, none seen from
    16 on).
    """
    narrow = any(
        layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.in_channels < NARROW
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    )
    safe = device.type != "cpu" or not narrow
    return torch.channels_last if safe else torch.contiguous_format


class Standardise(nn.Module):
    """Batch norm without scale and shift, level by level; the identity if switched off."""

    def __init__(self, channels: Sequence[int], *, active: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(count, affine=False) if active else nn.Identity() for count in channels
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return levels of the same shapes."""
        return [norm(level) for norm, level in zip(self.norms, levels, strict=True)]


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as a matrix product: on CPUs several times faster in channels-last."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in, height, width)`` to ``(batch, out, height, width)``."""
        mixed = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return mixed.permute(0, 3, 1, 2)
