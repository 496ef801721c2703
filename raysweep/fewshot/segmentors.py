"""The segmentation networks whose gradients are matched, and the blocks to match by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import nn

from raysweep.config import Config, ConfigError
from raysweep.nets.deeplab import Backbone, DeepLab, ThinConfig, build_deeplab
from raysweep.nets.resnet import STAGE_STRIDE
from raysweep.nets.unet import UNet, UnetConfig

Network = Literal["deeplab_resnet101", "deeplab_resnet50", "deeplab_thin", "unet"]
Block = Literal[
    "output",
    "head",
    "res5+head",
    "res4..5+head",
    "res3..5+head",
    "res2..5+head",
    "all",
    "up",
    "down",
    "input",
    "u1",
    "u2",
]
"""Blocks by the names of LAGM's tables 2 and C.8.

DeepLabV3: ``output`` its last 1x1 convolution, ``head`` the pyramid and all after it, the others
with residual stages before it, ``all`` with the stem. U-Net: ``input`` the first double
convolution, ``down`` and ``up`` all others on the way down and up, ``output`` the last 1x1
convolution, ``u1`` this with the two blocks that change between full and half size, ``u2`` with
those between half and quarter.
"""

_DEEPLAB: dict[str, tuple[str, ...]] = {
    "output": ("classifier.4",),
    "head": ("classifier",),
    "res5+head": ("backbone.layer4", "classifier"),
    "res4..5+head": ("backbone.layer3", "backbone.layer4", "classifier"),
    "res3..5+head": (*(f"backbone.layer{i}" for i in (2, 3, 4)), "classifier"),
    "res2..5+head": (*(f"backbone.layer{i}" for i in (1, 2, 3, 4)), "classifier"),
    "all": ("",),
}
_BACKBONES: dict[str, Backbone] = {
    "deeplab_resnet101": "resnet101",
    "deeplab_resnet50": "resnet50",
    "deeplab_thin": "thin",
}
DEEPLAB_BLOCKS = tuple(_DEEPLAB)
UNET_BLOCKS = ("all", "up", "down", "input", "output", "u1", "u2")


class SegmentorConfig(Config):
    """Which segmentor.

    Attributes:
        network: DeepLabV3 on ResNet-101 (LAGM), ResNet-50 or a thin trunk, or a U-Net.
        thin: sizes of ``deeplab_thin``.
        unet: sizes of ``unet``.
    """

    network: Network = "deeplab_resnet101"
    thin: ThinConfig = ThinConfig()
    unet: UnetConfig = UnetConfig()

    @property
    def is_unet(self) -> bool:
        """Whether it is the U-Net, which has no trunk and trains on single images."""
        return self.network == "unet"

    @property
    def minimum_px(self) -> int:
        """Smallest side of an image."""
        return self.unet.minimum_px if self.is_unet else STAGE_STRIDE

    def check_block(self, block: Block) -> None:
        """Refuse a block that the network does not have.

        Raises:
            ConfigError: see above.
        """
        allowed = UNET_BLOCKS if self.is_unet else DEEPLAB_BLOCKS
        if self.is_unet and len(self.unet.widths) == 2:
            allowed = tuple(name for name in UNET_BLOCKS if name != "u2")
        if block not in allowed:
            raise ConfigError(
                f"block = {block!r}: segmentor.network = {self.network!r} of these sizes has the "
                f"blocks {', '.join(allowed)}"
            )


class Matched(NamedTuple):
    """The parameters of a block.

    Attributes:
        parameters: by name, all of them.
        weights: those with output units, which have two axes or more.
        last: name of the weight of the last, linear layer, if it is among them.
    """

    parameters: dict[str, nn.Parameter]
    weights: dict[str, nn.Parameter]
    last: str | None


def build_segmentor(
    config: SegmentorConfig, num_classes: int, *, trunk: Mapping[str, torch.Tensor] | None
) -> DeepLab | UNet:
    """Return a network with fresh weights, drawn from torch's global generator.

    Args:
        config: which network.
        num_classes: number of classes, background included.
        trunk: tensors of DeepLabV3's residual trunk, under torchvision's names; None: random. The
            U-Net has none.

    Raises:
        ConfigError: the trunk's tensors are not those of the network.
    """
    if config.network == "unet":
        return UNet(config.unet, num_classes)
    network = build_deeplab(_BACKBONES[config.network], num_classes, thin=config.thin)
    if trunk is not None:
        try:
            network.backbone.load_state_dict(dict(trunk))
        except RuntimeError as error:
            raise ConfigError(
                f"segmentor.network = {config.network!r}: the trunk's tensors do not fit ({error})"
            ) from None
    return network


def matched(network: DeepLab | UNet, block: Block) -> Matched:
    """Return the parameters of a block, in the network's order."""
    prefixes = _unet_prefixes(network, block) if isinstance(network, UNet) else _DEEPLAB[block]
    chosen = {
        name: parameter
        for name, parameter in network.named_parameters()
        if any(not prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
    }
    weights = {name: each for name, each in chosen.items() if each.dim() > 1}
    last = [name for name, each in weights.items() if each is network.classes.weight]
    return Matched(chosen, weights, last[0] if last else None)


def _unet_prefixes(network: UNet, block: Block) -> tuple[str, ...]:
    down, up = len(network.down), len(network.up)
    return {
        "all": ("",),
        "up": ("up",),
        "down": tuple(f"down.{level}" for level in range(1, down)),
        "input": ("down.0",),
        "output": ("classes",),
        "u1": ("classes", "down.1", f"up.{up - 1}"),
        "u2": ("classes", "down.2", f"up.{up - 2}"),
    }[block]
