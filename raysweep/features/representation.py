"""Frozen representations: an image in, the maps of all levels out.

Those of generators, which take codes in place of images, are in
:mod:`raysweep.features.generator`.
"""

from __future__ import annotations

from typing import Protocol

import torch

from raysweep.nets.resnet import Trunk


class Representation(Protocol):
    """What a projector stands on.

    Attributes:
        channels: channels of each level, shallow to deep.
        takes_codes: whether inputs are codes of a generator, which cannot be augmented; else they
            are normalised images ``(batch, 3, height, width)``.
    """

    channels: tuple[int, ...]
    takes_codes: bool

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Map a batch of inputs to one map ``(batch, channels[i], height, width)`` per level."""


class TrunkFeatures:
    """conv2_x to conv5_x of a frozen trunk in eval mode, the stem's stride set to 1.

    Source: GanOrCon 4.2 and appendix D. The trunk is taken over: frozen and switched to eval mode.
    """

    takes_codes = False

    def __init__(self, trunk: Trunk) -> None:
        trunk.eval().requires_grad_(False).set_stem_stride(1)
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self.channels: tuple[int, ...] = trunk.channels

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return four maps ``(batch, channels[i], height_i, width_i)`` without gradient."""
        return self.trunk.stages(inputs.contiguous(memory_format=torch.channels_last))


class RawColour:
    """The image itself as the only level: the floor of every table."""

    channels: tuple[int, ...] = (3,)
    takes_codes = False

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return ``[inputs]``."""
        return [inputs]
