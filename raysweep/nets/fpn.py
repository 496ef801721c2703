"""LAGM's annotator: a feature-pyramid decoder on the maps of a generator.

Learning to annotate part segmentation with gradient matching (2211.02003) and its released code:
no smoothing convolutions, no normalisation of the features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from raysweep.config import Config


class FpnConfig(Config):
    """Sizes of the decoder; by default the released code's.

    Attributes:
        width: channels of the lateral and of the head's convolutions.
        depth: 3x3 convolutions of the head, the one to the classes included.
    """

    width: int = Field(default=128, ge=1)
    depth: int = Field(default=3, ge=1)


class Fpn(nn.Module):
    """Lateral 1x1 convolutions, summed from coarse to fine, and a head on the finest map.

    Weights are drawn from torch's global generator, as torch's layers do.

    Args:
        config: the sizes.
        channels: channels of each level, fine to coarse.
        num_classes: number of classes, background included.
    """

    def __init__(self, config: FpnConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = config.width
        self.channels = tuple(channels)
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        hidden: list[nn.Module] = []
        for _ in range(config.depth - 1):
            hidden.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            hidden += [nn.BatchNorm2d(width), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Conv2d(width, num_classes, 3, padding=1))

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Return class scores.

        Args:
            levels: maps ``(batch, channels[l], height_l, width_l)``, fine to coarse.
            px: side of the result.

        Returns:
            ``(batch, classes, px, px)`` logits. They are made at the size of the finest map and
            resized, bilinearly with antialiasing, only where ``px`` is another.

        Raises:
            ValueError: the levels' channels are not ``channels``.
        """
        found = tuple(level.shape[1] for level in levels)
        if found != self.channels:
            raise ValueError(f"levels have {found} channels: expected {self.channels}")
        x: torch.Tensor | None = None
        for level, lateral in zip(reversed(levels), reversed(self.lateral), strict=True):
            own = lateral(level)
            if x is not None and x.shape[-2:] != own.shape[-2:]:
                x = F.interpolate(x, size=own.shape[-2:], mode="bilinear", align_corners=False)
            x = own if x is None else x + own
        scores: torch.Tensor = self.head(x)
        return resize(scores, px)


def resize(maps: torch.Tensor, px: int) -> torch.Tensor:
    """Return ``(batch, channels, height, width)`` at ``(px, px)``: bilinear, antialiased."""
    if maps.shape[-2:] == (px, px):
        return maps
    return F.interpolate(maps, size=(px, px), mode="bilinear", antialias=True)
