"""Projector architectures: from the levels of a representation to per-pixel class scores.

GanOrCon appendix B and its released code; ReGAN's are in :mod:`raysweep.nets.cnn`. All take
``(levels, px)`` and return ``(batch, classes, px, px)``; the first layer never builds the
hypercolumn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from raysweep.config import Config, ConfigError
from raysweep.nets.cnn import REGAN, Cnn, ConvTable, ReganKind
from raysweep.nets.hypercolumn import HypercolumnConv2d
from raysweep.nets.layers import Pointwise, Standardise

Kind = Literal["mlp", "conv_a", "conv_b", "cnn"] | ReganKind

# widths of the papers, and how many of them lie on the way down; of "cnn" an example
PAPER_WIDTHS: dict[Kind, tuple[int, ...]] = {
    "mlp": (1024, 256),
    "conv_a": (1024, 256, 256, 256, 512, 512, 256, 256, 128, 256, 256),
    "conv_b": (1024, 256, 256, 256, 512, 256, 128, 256, 256),
    "cnn": (128, 64, 32),
    **{kind: table.widths for kind, table in REGAN.items()},
}
DOWN: dict[Kind, int] = {"conv_a": 6, "conv_b": 5}


class ProjectorConfig(Config):
    """Which projector.

    Attributes:
        kind: GanOrCon's ``mlp``, ``conv_a`` (Model-A, for 512 px) and ``conv_b`` (Model-B, for
            256 px); ReGAN's ``regan_mlp``, ``regan_s``, ``regan_m``, ``regan_l`` and
            ``regan_l_released`` (see :data:`raysweep.nets.cnn.REGAN`); ``cnn`` for any other chain
            of convolutions.
        widths: channels of the hidden layers in order; the paper's if left out. Their number is
            free for ``cnn`` only.
        kernel: taps per axis of all layers of ``cnn`` but the last, which has one.
        dilations: of the hidden layers of ``cnn``; 1 if left out. The first must be 1.
        norm: batch norm in ``cnn``, before the activation.
        standardise: batch norm without scale and shift on every level before the first layer. Not
            in the papers; needed where levels differ in scale, as with random weights.
    """

    kind: Kind = "mlp"
    widths: tuple[int, ...] | None = Field(default=None)
    kernel: Literal[1, 3, 5] = 3
    dilations: tuple[int, ...] | None = None
    norm: Literal["batch", "none"] = "batch"
    standardise: bool = False

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> ProjectorConfig:
        expected = len(PAPER_WIDTHS[self.kind])
        free = self.kind == "cnn" and len(self.hidden) > 0
        if not (free or len(self.hidden) == expected) or min(self.hidden) < 1:
            raise ConfigError(
                f"widths = {self.widths}: {self.kind} takes {expected} positive numbers, e.g. "
                f"{list(PAPER_WIDTHS[self.kind])}"
            )
        if self.dilations is not None and (
            len(self.dilations) != len(self.hidden)
            or min(self.dilations) < 1
            or self.dilations[0] != 1
        ):
            raise ConfigError(
                f"dilations = {self.dilations}: one positive number per hidden layer, the first "
                f"of them 1, e.g. {[1] * len(self.hidden)}"
            )
        unread = {"kernel", "dilations", "norm"} & self.model_fields_set
        if self.kind != "cnn" and any(
            getattr(self, name) != type(self).model_fields[name].default for name in unread
        ):
            raise ConfigError(
                f"{', '.join(sorted(unread))}: only kind 'cnn' has them, not {self.kind!r}; leave "
                "them out"
            )
        return self

    @property
    def hidden(self) -> tuple[int, ...]:
        """Channels of the hidden layers."""
        return PAPER_WIDTHS[self.kind] if self.widths is None else self.widths

    @property
    def minimum_px(self) -> int:
        """Smallest side of the output: that which can be halved as often as the model pools."""
        return 2 ** (DOWN[self.kind] - 1) if self.kind in DOWN else 1

    def table(self) -> ConvTable:
        """Return the layers of ``cnn`` and of ReGAN's projectors."""
        if self.kind in REGAN:
            return REGAN[self.kind]._replace(widths=self.hidden)
        return ConvTable(
            widths=self.hidden,
            kernels=(*[self.kernel] * len(self.hidden), 1),
            dilations=(*(self.dilations or [1] * len(self.hidden)), 1),
            norm=self.norm == "batch",
        )


class MlpProjector(nn.Module):
    """Three 1x1 convolutions without bias, batch norm and ReLU between them."""

    def __init__(self, config: ProjectorConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        first, second = config.hidden
        self.standardise = Standardise(channels, active=config.standardise)
        self.first = HypercolumnConv2d(channels, first, kernel=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.second = Pointwise(first, second, bias=False)
        self.norm2 = nn.BatchNorm2d(second)
        self.classes = Pointwise(second, num_classes, bias=False)
        _initialise(self)

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Map levels ``(batch, channel_l, height_l, width_l)`` to ``(batch, classes, px, px)``."""
        hidden = F.relu(self.norm1(self.first(self.standardise(levels), (px, px))))
        hidden = F.relu(self.norm2(self.second(hidden)))
        scores: torch.Tensor = self.classes(hidden)
        return scores


class ConvBlock(nn.Module):
    """One 3x3 convolution with bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in, height, width)`` to ``(batch, out, height, width)``."""
        return F.relu(self.norm(self.conv(x)))


class ConvProjector(nn.Module):
    """Model-A and Model-B: a U-Net on the hypercolumn (appendix B).

    On the way down 2x2 max pooling before each block; on the way up bilinear upsampling
    (``align_corners=True``) to the size of the skip, which comes first in the concatenation. Sizes
    that pooling does not divide are rounded down, and met again on the way up.
    """

    def __init__(self, config: ProjectorConfig, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        down = config.hidden[: DOWN[config.kind]]
        up = config.hidden[DOWN[config.kind] :]
        self.standardise = Standardise(channels, active=config.standardise)
        self.first = HypercolumnConv2d(channels, down[0], kernel=3, bias=True)
        self.norm = nn.BatchNorm2d(down[0])
        self.down = nn.ModuleList(
            [ConvBlock(wide, deep) for wide, deep in zip(down, down[1:], strict=False)]
        )
        skips, below = down[-2::-1], (down[-1], *up)
        self.up = nn.ModuleList(
            [
                ConvBlock(skip + under, out)
                for skip, under, out in zip(skips, below, up, strict=False)
            ]
        )
        self.classes = Pointwise(up[-1], num_classes, bias=True)
        _initialise(self)

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Map levels ``(batch, channel_l, height_l, width_l)`` to ``(batch, classes, px, px)``."""
        x = F.relu(self.norm(self.first(self.standardise(levels), (px, px))))
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for block in self.up:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
            x = block(torch.cat([skip, x], dim=1))
        scores: torch.Tensor = self.classes(x)
        return scores


def build_projector(
    config: ProjectorConfig, channels: Sequence[int], num_classes: int
) -> nn.Module:
    """Return a projector with fresh weights, drawn from torch's global generator.

    Args:
        config: which one.
        channels: channels of each level of the representation, shallow to deep.
        num_classes: number of classes, background included.
    """
    if config.kind == "mlp":
        return MlpProjector(config, channels, num_classes)
    if config.kind in DOWN:
        return ConvProjector(config, channels, num_classes)
    return Cnn(config.table(), channels, num_classes, standardise=config.standardise)


def _initialise(net: nn.Module) -> None:
    """He-normal convolutions by fan-in, batch-norm scale N(1, 0.02), all biases zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | HypercolumnConv2d):
            nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
