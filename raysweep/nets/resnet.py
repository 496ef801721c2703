"""Residual trunks whose four stages are readable one by one.

``resnet18``, ``resnet50`` and ``resnet101`` are torchvision's, tensor names included. ``thin`` is a
small one for small images and small machines: a 3x3 stem without max-pooling and one basic block
per stage.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision
from pydantic import Field, model_validator
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from raysweep.config import Config, ConfigError

STAGE_STRIDE = 8
"""Downsampling from conv2_x to conv5_x: three stages of stride 2."""


class TrunkConfig(Config):
    """Which trunk; ``width`` is the channel count of the first stage of ``thin``."""

    name: Literal["thin", "resnet18", "resnet50", "resnet101"] = "thin"
    width: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _width_is_of_thin(self) -> TrunkConfig:
        if self.name != "thin" and self.width != type(self).model_fields["width"].default:
            raise ConfigError(
                f"width = {self.width}: only trunk 'thin' has a width; leave it out for {self.name}"
            )
        return self

    @property
    def minimum_px(self) -> int:
        """Smallest square input in pretraining, where the stem has stride 2."""
        return 2 * STAGE_STRIDE * (1 if self.name == "thin" else 2)


class Trunk(nn.Module):
    """Stem and four residual stages; tensor names are torchvision's without the classifier.

    Attributes:
        config: what it was built from.
        channels: channels of conv2_x, conv3_x, conv4_x, conv5_x.
    """

    def __init__(
        self,
        config: TrunkConfig,
        *,
        stem: nn.Conv2d,
        maxpool: nn.Module,
        layers: list[nn.Module],
        channels: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(stem.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    @property
    def minimum_px(self) -> int:
        """Smallest square input at the present stem stride: it leaves one pixel at conv5_x."""
        return self.config.minimum_px // 2 * self.conv1.stride[0]

    def set_stem_stride(self, stride: Literal[1, 2]) -> None:
        """Set the stride of the first convolution; weights stay as they are.

        Pretraining uses 2. Hypercolumns use 1, which doubles the size of every map (GanOrCon 4.2).
        """
        if stride not in (1, 2):
            raise ValueError(f"stride = {stride}: allowed are 1 (hypercolumns) and 2 (pretraining)")
        self.conv1.stride = (stride, stride)

    def stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps after the final ReLU of conv2_x, conv3_x, conv4_x and conv5_x.

        Args:
            images: ``(batch, 3, height, width)`` float, normalised by ImageNet's mean and std.

        Returns:
            Four maps ``(batch, channels[i], height_i, width_i)``, each half the size of the one
            before. With stem stride 1, conv2_x has the input's size in ``thin`` and half of it in
            the others, which pool.

        Raises:
            ValueError: the input is smaller than :attr:`minimum_px`.
        """
        if min(images.shape[-2:]) < self.minimum_px:
            raise ValueError(
                f"image of {images.shape[-2]} x {images.shape[-1]} px: trunk {self.config.name!r} "
                f"with stem stride {self.conv1.stride[0]} needs at least {self.minimum_px} px"
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return conv5_x averaged over its pixels.

        Args:
            images: as for :meth:`stages`.

        Returns:
            ``(batch, channels[-1])`` float.
        """
        return self.stages(images)[-1].mean((2, 3))


def build_trunk(config: TrunkConfig) -> Trunk:
    """Return a trunk with random weights, drawn from torch's global generator.

    Weights are He-normal by fan-out, batch norms one and zero, as torchvision initialises its own
    (He et al. 2015, 1502.01852, eq. 14). Wrap the call in :func:`raysweep.rng.seeded` to choose
    the draw.
    """
    if config.name == "thin":
        return _thin(config)
    net = getattr(torchvision.models, config.name)(weights=None)
    wide = 64 * (BasicBlock.expansion if config.name == "resnet18" else Bottleneck.expansion)
    return Trunk(
        config,
        stem=net.conv1,
        maxpool=net.maxpool,
        layers=[net.layer1, net.layer2, net.layer3, net.layer4],
        channels=(wide, 2 * wide, 4 * wide, 8 * wide),
    )


def zero_init_residuals(trunk: Trunk) -> None:
    """Start every residual block as the identity: its last batch norm scales by zero.

    Source: Goyal et al. 2017 (1706.02677) section 5.1; used by SimSiam's official code.
    """
    for module in trunk.modules():
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)


def _thin(config: TrunkConfig) -> Trunk:
    w = config.width
    stem = nn.Conv2d(3, w, kernel_size=3, stride=2, padding=1, bias=False)
    layers = [
        _stage(w, w, stride=1),
        _stage(w, 2 * w, stride=2),
        _stage(2 * w, 4 * w, stride=2),
        _stage(4 * w, 8 * w, stride=2),
    ]
    channels = (w, 2 * w, 4 * w, 8 * w)
    trunk = Trunk(config, stem=stem, maxpool=nn.Identity(), layers=layers, channels=channels)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return trunk


def _stage(inputs: int, outputs: int, *, stride: int) -> nn.Module:
    if stride == 1:
        return nn.Sequential(BasicBlock(inputs, outputs))
    project = nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(outputs),
    )
    return nn.Sequential(BasicBlock(inputs, outputs, stride=stride, downsample=project))
