"""Chains of convolutions on a hypercolumn: ReGAN's projectors and their like.

Repurposing GANs (2103.04379). They see the neighbourhood of a pixel through dilation, at full
resolution throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from raysweep.nets.hypercolumn import HypercolumnConv2d
from raysweep.nets.layers import Pointwise, Standardise


class ConvTable(NamedTuple):
    """The layers of a chain.

    Attributes:
        widths: channels of the hidden layers.
        kernels: taps per axis of every layer, the one to the classes included.
        dilations: of every layer; padding keeps the size. The first is 1.
        norm: batch norm before each activation.
        slope: of the leaky ReLU below zero; 0 is plain ReLU.
    """

    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]
    norm: bool = False
    slope: float = 0.0


ReganKind = Literal["regan_mlp", "regan_s", "regan_m", "regan_l", "regan_l_released"]
_L = ((128, *[64] * 6, 32), (1, 2, 4, 8, 1, 2, 4, 8, 1))
REGAN: dict[ReganKind, ConvTable] = {
    # sizes S, M, L by an unofficial port: the official release holds none of them
    "regan_s": ConvTable((128, 64, 64, 32), (3,) * 5, (1, 2, 1, 2, 1), slope=0.2),
    "regan_m": ConvTable((128, *[64] * 4, 32), (3,) * 7, (1, 2, 4, 1, 2, 4, 1), slope=0.2),
    "regan_l": ConvTable(_L[0], (3,) * 9, _L[1], slope=0.2),
    # "dilated_CNN_61" of the official release: sees 61 px
    "regan_l_released": ConvTable(_L[0], (1, *[3] * 8), _L[1], slope=0.01),
    # the size that GanOrCon states for ReGAN's MLP
    "regan_mlp": ConvTable((2000, 200), (1,) * 3, (1,) * 3),
}


class Cnn(nn.Module):
    """Convolutions with bias, batch norm if asked for, and leaky ReLU between them.

    Args:
        table: its layers.
        channels: channels of each level, shallow to deep.
        num_classes: number of classes, background included.
        standardise: batch norm without scale and shift on every level.
    """

    def __init__(
        self, table: ConvTable, channels: Sequence[int], num_classes: int, *, standardise: bool
    ) -> None:
        super().__init__()
        self.slope = table.slope
        widths = (*table.widths, num_classes)
        self.standardise = Standardise(channels, active=standardise)
        self.first = HypercolumnConv2d(channels, widths[0], kernel=table.kernels[0], bias=True)
        self.rest = nn.ModuleList(
            _convolution(wide, out, kernel, dilation)
            for wide, out, kernel, dilation in zip(
                widths, widths[1:], table.kernels[1:], table.dilations[1:], strict=False
            )
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if table.norm else nn.Identity() for width in table.widths
        )

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Map levels ``(batch, channel_l, height_l, width_l)`` to ``(batch, classes, px, px)``."""
        scores: torch.Tensor = self.first(self.standardise(levels), (px, px))
        for norm, conv in zip(self.norms, self.rest, strict=True):
            scores = conv(F.leaky_relu(norm(scores), self.slope))
        return scores


def _convolution(wide: int, out: int, kernel: int, dilation: int) -> nn.Module:
    if kernel == 1:
        return Pointwise(wide, out, bias=True)
    padding = kernel // 2 * dilation
    return nn.Conv2d(wide, out, kernel, padding=padding, dilation=dilation)
