"""The residual StyleGAN2 discriminator, without labels (1912.04958 section 4.1).

Modules, parameters and buffers carry the names of the official PyTorch state dict.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from raysweep.nets.equalised import EqualisedConv2d, EqualisedLinear
from raysweep.nets.fir import fir_kernel
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.nets.stylegan2_layers import in_working_format

BRANCH_GAIN = math.sqrt(0.5)


def minibatch_std(x: torch.Tensor, *, group: int) -> torch.Tensor:
    """Append how much the images of a group differ as one more channel (1710.10196 section 3).

    With ``n = batch / group``, image ``i`` belongs to group ``i mod n``. Groups are made of one
    worker's images.

    Args:
        x: ``(batch, channels, height, width)``.
        group: images in a group, at most; must divide the batch unless the batch is smaller.

    Returns:
        ``(batch, channels + 1, height, width)``; the last channel is the standard deviation over
        the group, averaged over channels and pixels.

    Raises:
        ValueError: ``group`` does not divide the batch.
    """
    batch, _, height, width = x.shape
    size = min(group, batch)
    if batch % size:
        raise ValueError(
            f"mbstd_group = {group} does not divide the batch of {batch} images of a worker; take "
            "a group that does"
        )
    members = x.unflatten(0, (size, -1))
    variance = (members - members.mean(0)).square().mean(0)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))
    spread = deviation.repeat(size)[:, None, None, None].expand(-1, 1, height, width)
    return torch.cat([x, spread], dim=1)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size; that of the highest resolution starts from colours."""

    resample_filter: torch.Tensor

    def __init__(self, resolution: int, *, config: StyleGan2Config) -> None:
        super().__init__()
        wide, out = config.channels(resolution), config.channels(resolution // 2)
        limit = config.limit
        self.half_precision = config.is_half(resolution)
        self.register_buffer("resample_filter", fir_kernel())  # unused, as in the official code
        if resolution == config.resolution:
            self.fromrgb = EqualisedConv2d(3, wide, 1, limit=limit)
        self.conv0 = EqualisedConv2d(wide, wide, 3, limit=limit)
        self.conv1 = EqualisedConv2d(wide, out, 3, down=True, limit=limit)
        self.skip = EqualisedConv2d(
            wide, out, 1, bias=False, activate=False, down=True, limit=limit
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in, side, side)`` to ``(batch, out, side / 2, side / 2)``."""
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        skipped = self.skip(x, gain=BRANCH_GAIN)
        convolved = self.conv1(self.conv0(x), gain=BRANCH_GAIN)
        return torch.add(skipped, convolved)


class Epilogue(nn.Module):
    """From activations at 4x4 to one number."""

    def __init__(self, *, config: StyleGan2Config) -> None:
        super().__init__()
        side = config.resolutions[0]
        channels = config.channels(side)
        self.group = config.mbstd_group
        self.conv = EqualisedConv2d(channels + 1, channels, 3, limit=config.limit)
        self.fc = EqualisedLinear(channels * side**2, channels, activate=True)
        self.out = EqualisedLinear(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, 4, 4)`` to ``(batch, 1)``."""
        x = self.conv(minibatch_std(x, group=self.group))
        scores: torch.Tensor = self.out(self.fc(x.flatten(1)))
        return scores


class Discriminator(nn.Module):
    """From images to logits; initial weights are drawn from torch's global generator."""

    def __init__(self, config: StyleGan2Config) -> None:
        super().__init__()
        self.config = config
        first, *others = config.resolutions
        for side in reversed(others):
            self.add_module(f"b{side}", DiscriminatorBlock(side, config=config))
        self.add_module(f"b{first}", Epilogue(config=config))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, positive for images taken for real.

        Args:
            images: ``(batch, 3, resolution, resolution)``, nominally in [-1, 1].

        Returns:
            ``(batch, 1)`` of the dtype of ``images``.

        Raises:
            ValueError: wrong size of images, or ``mbstd_group`` does not divide the batch.
        """
        side = self.config.resolution
        if images.shape[1:] != (3, side, side):
            raise ValueError(
                f"images of shape {tuple(images.shape)}: expected (batch, 3, {side}, {side})"
            )
        x = images
        for resolution in reversed(self.config.resolutions):
            half = self.config.is_half(resolution)
            x = in_working_format(x, half=half, full=images.dtype)
            x = self.get_submodule(f"b{resolution}")(x)
        return x
