"""Frozen representations: an image in, the maps of all levels out."""

from __future__ import annotations

from typing import Protocol

import torch

from raysweep.nets.resnet import Trunk


class Representation(Protocol):
    """What a projector stands on.

    Attributes:
        channels: channels of each level, shallow to deep.
    """

    channels: tuple[int, ...]

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(batch, 3, height, width)`` normalised images to one map per level."""


class TrunkFeatures:
    """conv2_x to conv5_x of a frozen trunk in eval mode, the stem's stride set to 1.

    Source: GanOrCon 4.2 and appendix D. The trunk is taken over: frozen and switched to eval mode.
    """

    def __init__(self, trunk: Trunk) -> None:
        trunk.eval().requires_grad_(False).set_stem_stride(1)
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self.channels: tuple[int, ...] = trunk.channels

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return four maps ``(batch, channels[i], height_i, width_i)`` without gradient."""
        return self.trunk.stages(images.contiguous(memory_format=torch.channels_last))


class RawColour:
    """The image itself as the only level: the floor of every table."""

    channels: tuple[int, ...] = (3,)

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return ``[images]``."""
        return [images]
