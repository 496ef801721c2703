"""A U-Net trained from scratch: the student of ReGAN and LAGM.

Ronneberger et al. 2015 (1505.04597) in the form both papers use: padded convolutions with batch
norm, bilinear upsampling, 64-128-256-512-512 channels.
"""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.nn import functional as F

from raysweep.config import Config, ConfigError


class UnetConfig(Config):
    """Which U-Net.

    Attributes:
        widths: channels of each level, from the input's size down; each further level halves the
            map once more. The papers' by default; a fraction of them suits CPUs.
    """

    widths: tuple[int, ...] = Field(default=(64, 128, 256, 512, 512))

    @field_validator("widths")
    @classmethod
    def _levels(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) < 2 or min(value) < 1:
            raise ConfigError(
                f"widths = {list(value)}: two or more positive numbers are needed, one per level, "
                "e.g. [64, 128, 256, 512, 512]"
            )
        return value

    @property
    def minimum_px(self) -> int:
        """Smallest height and width: one pixel is left at the deepest level."""
        return int(2 ** (len(self.widths) - 1))


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution with bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """The network; weights are drawn from torch's global generator, as torch's layers do.

    Attributes:
        config: what it was built from.
        down: one block per level; all but the first follow a 2x2 max pooling.
        up: one block per level but the deepest, deep to shallow. A block gets the skip of its
            level first, then what lies below, and has as many channels as the level above it.
        classes: 1x1 convolution.

    Args:
        config: the widths.
        num_classes: number of classes, background included.
    """

    def __init__(self, config: UnetConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(
            DoubleConv(before, width) for before, width in zip((3, *widths), widths, strict=False)
        )
        blocks, below = [], widths[-1]
        for level in reversed(range(len(widths) - 1)):
            width = widths[max(level - 1, 0)]
            blocks.append(DoubleConv(widths[level] + below, width))
            below = width
        self.up = nn.ModuleList(blocks)
        self.classes = nn.Conv2d(below, num_classes, 1)

    def blocks(self) -> dict[str, nn.Module]:
        """Return the blocks by name, in the order in which an image passes them."""
        named = {f"down{level}": block for level, block in enumerate(self.down)}
        named |= {f"up{len(self.up) - 1 - at}": block for at, block in enumerate(self.up)}
        return named | {"classes": self.classes}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return class scores.

        Args:
            images: ``(batch, 3, height, width)`` float, normalised.

        Returns:
            ``(batch, classes, height, width)`` logits.

        Raises:
            ValueError: height or width is below the config's ``minimum_px``.
        """
        if min(images.shape[-2:]) < self.config.minimum_px:
            raise ValueError(
                f"image of {images.shape[-2]} x {images.shape[-1]} px: a U-Net of "
                f"{len(self.config.widths)} levels needs at least {self.config.minimum_px} px"
            )
        skips = [self.down[0](images)]
        for block in self.down[1:]:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([skip, _padded(x, skip.shape[-2:])], dim=1))
        scores: torch.Tensor = self.classes(x)
        return scores


def _padded(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    # pooling rounds odd sizes down: up to one row and one column are missing, filled with zeros
    rows, columns = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
