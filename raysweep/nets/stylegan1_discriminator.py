"""StyleGAN discriminator (1812.04948, after 1710.10196) at a fixed resolution."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan1_layers import SLOPE, Blur, EqualisedConv, EqualisedLinear


def minibatch_deviation(x: torch.Tensor, group: int) -> torch.Tensor:
    """Return how much the images of a group differ: one constant map per image.

    The standard deviation over the group, averaged over channels and pixels (1710.10196 section
    3). Image i is of group ``i mod (batch / group)``.

    Args:
        x: ``(batch, channels, height, width)``.
        group: images per group; the whole batch if that is smaller.

    Returns:
        ``(batch, 1, height, width)``.

    Raises:
        ValueError: groups of this size do not fill the batch.
    """
    batch, _, height, width = x.shape
    group = min(group, batch)
    if batch % group:
        raise ValueError(
            f"mbstd_group = {group}: must divide the batch of {batch}; use one of "
            f"{[n for n in range(1, batch + 1) if batch % n == 0]}"
        )
    grouped = x.reshape(group, batch // group, -1)
    deviation = torch.sqrt(grouped.var(0, correction=0) + 1e-8).mean(1)
    return deviation.repeat(group)[:, None, None, None].expand(-1, 1, height, width)


class Block(nn.Module):
    """Convolution, blur, convolution with halving by 2x2 means."""

    def __init__(self, inputs: int, outputs: int, *, blur: bool) -> None:
        super().__init__()
        self.conv0 = EqualisedConv(inputs, inputs, 3)
        self.intermediate = Blur() if blur else nn.Identity()
        self.conv1_down = EqualisedConv(inputs, outputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, inputs, r, r)`` to ``(batch, outputs, r / 2, r / 2)``."""
        x = F.leaky_relu(self.conv0(x), SLOPE)
        return F.leaky_relu(F.avg_pool2d(self.conv1_down(self.intermediate(x)), 2), SLOPE)


class Discriminator(nn.Module):
    """Images to logits; fresh weights are drawn from torch's global generator.

    Args:
        config: sizes; the block at resolution r takes as many channels as the generator's gives.
    """

    def __init__(self, config: StyleGan1Config) -> None:
        super().__init__()
        self.group = config.mbstd_group
        self.fromrgb = EqualisedConv(3, config.channels(config.resolution), 1)
        self.blocks = nn.ModuleDict()
        for r in config.resolutions[:0:-1]:
            wide, deep = config.channels(r), config.channels(r // 2)
            self.blocks[f"{r}x{r}"] = Block(wide, deep, blur=config.blur)
        last = config.channels(4)
        self.conv = EqualisedConv(last + 1, last, 3)
        self.dense0 = EqualisedLinear(last * 16, config.channels(2), gain=math.sqrt(2))
        self.dense1 = EqualisedLinear(config.channels(2), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, 3, R, R)`` in [-1, 1] to logits ``(batch, 1)``, real above 0."""
        x = F.leaky_relu(self.fromrgb(images), SLOPE)
        for block in self.blocks.values():
            x = block(x)
        x = torch.cat([x, minibatch_deviation(x, self.group)], dim=1)
        x = F.leaky_relu(self.conv(x), SLOPE)
        x = F.leaky_relu(self.dense0(x.flatten(1)), SLOPE)
        logits: torch.Tensor = self.dense1(x)
        return logits
