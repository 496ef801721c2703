"""DeepLabV3 students: torchvision's on ResNet-101 or ResNet-50, and a thin one for CPUs.

Chen et al. 2017 (1706.05587), without the auxiliary head. Weights are random: an ImageNet trunk,
with which DatasetGAN, GanOrCon, DDPM-seg and LAGM start, is loaded into ``backbone`` by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.nn import functional as F
from torchvision.models import segmentation
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation.deeplabv3 import ASPP

from raysweep import rng
from raysweep.config import Config, ConfigError
from raysweep.nets.resnet import Trunk, TrunkConfig, build_trunk

Backbone = Literal["resnet101", "resnet50", "thin"]

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ThinConfig(Config):
    """Sizes of the thin DeepLab.

    Attributes:
        trunk_width: channels of the first stage of the trunk; the last has eight times as many.
        head_width: channels of every branch of the pyramid and of the head (256 in the paper).
        rates: dilations of the pyramid's 3x3 branches in pixels of a map of 1/8 of the input (12,
            24, 36 in the paper, for 512 px).
        output_stride: downsampling of the last stage; below 8, later stages are dilated and not
            strided (Chen et al. 2017, section 3), for images of few pixels.
    """

    trunk_width: int = Field(default=16, ge=1)
    head_width: int = Field(default=32, ge=1)
    rates: tuple[int, ...] = (2, 4, 6)
    output_stride: Literal[1, 2, 4, 8] = 8

    @field_validator("rates")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1:
            raise ConfigError(
                f"rates = {list(value)}: one or more positive dilations are needed, e.g. [2, 4, 6]"
            )
        return value


class SeededDropout(nn.Module):
    """Dropout whose masks belong to seed, step and image, never to the global generator.

    Each image of the global batch has its own stream, so its mask does not depend on the number
    of workers. Aim it with :func:`seed_dropout` before every training step.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.aim: tuple[int, int, int] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, ...)`` with elements zeroed and the others scaled, if training.

        Raises:
            ValueError: training without :func:`seed_dropout`.
        """
        if not self.training:
            return x
        if self.aim is None:
            raise ValueError("dropout has no seed: call seed_dropout before every training step")
        seed, step, first = self.aim
        uniform = [
            torch.rand(
                x.shape[1:],
                generator=rng.generator(seed, "dropout", step, first + at, device=x.device),
                device=x.device,
            )
            for at in range(len(x))
        ]
        return x * (torch.stack(uniform) >= self.p) / (1 - self.p)


def seed_dropout(network: nn.Module, *, seed: int, step: int, first: int) -> None:
    """Choose the dropout masks of the next forward pass.

    Args:
        network: any module; others than :class:`SeededDropout` are left alone.
        seed: seed of the run.
        step: optimiser steps taken before.
        first: place of the first image of the coming batch in the global batch.
    """
    for module in network.modules():
        if isinstance(module, SeededDropout):
            module.aim = (seed, step, first)


class DeepLab(nn.Module):
    """Backbone, pyramid, head; tensor names are torchvision's.

    Attributes:
        backbone: images to maps of 1/8 of the size.
        classifier: maps to scores: pyramid, 3x3 convolution, batch norm, ReLU, 1x1 convolution.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Sequential) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        project = classifier.get_submodule("0.project")
        dropout = project.get_submodule("3")
        project.add_module("3", SeededDropout(float(dropout.p)))  # type: ignore[arg-type]

    def blocks(self) -> dict[str, nn.Module]:
        """Return the blocks by name, in the order in which an image passes them."""
        stages = {name: self.backbone.get_submodule(name) for name in STAGES}
        tail = {"aspp": self.classifier[0], "head": self.classifier[1], "classes": self.classes}
        return {"stem": self.backbone.get_submodule("conv1")} | stages | tail

    @property
    def classes(self) -> nn.Module:
        """The last, 1x1 convolution."""
        return self.classifier[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return class scores.

        Args:
            images: ``(batch, 3, height, width)`` float, normalised by ImageNet's mean and std. In
                training mode two or more: the pyramid's pooled branch normalises over the batch.

        Returns:
            ``(batch, classes, height, width)`` logits, upsampled bilinearly
            (``align_corners=False``).

        Raises:
            ValueError: a single image in training mode.
        """
        if self.training and len(images) < 2:
            raise ValueError(
                "DeepLabV3 trains on two or more images per worker: its pooled branch has one "
                "value per image and channel to normalise; raise batch or use fewer workers"
            )
        scores = self.classifier(self.backbone(images)["out"])
        return F.interpolate(scores, size=images.shape[-2:], mode="bilinear", align_corners=False)


class ThinBackbone(Trunk):
    """The thin trunk with the interface of torchvision's segmentation backbones.

    The stem has stride 1, so that the last stage has at least 1/8 of the input's size, as in
    DeepLabV3.
    """

    def __init__(self, width: int, *, output_stride: int) -> None:
        trunk = build_trunk(TrunkConfig(name="thin", width=width))
        super().__init__(
            trunk.config,
            stem=trunk.conv1,
            maxpool=trunk.maxpool,
            layers=[trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4],
            channels=trunk.channels,
        )
        self.set_stem_stride(1)
        _dilate([trunk.layer2, trunk.layer3, trunk.layer4], output_stride)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Map ``(batch, 3, h, w)`` to ``{"out": (batch, 8 width, h / stride, w / stride)}``."""
        return {"out": self.stages(images)[-1]}


def _dilate(layers: Sequence[nn.Module], output_stride: int) -> None:
    """Replace the strides of the last stages, one basic block each, by dilation."""
    stride, dilation = 1, 1
    for layer in layers:
        block = layer.get_submodule("0")
        assert isinstance(block, BasicBlock)
        before = dilation
        if stride < output_stride:
            stride *= 2
        else:
            dilation *= 2
            for strided in (block.conv1, block.downsample[0]):
                strided.stride = (1, 1)
        for conv, rate in ((block.conv1, before), (block.conv2, dilation)):
            conv.dilation = conv.padding = (rate, rate)


def build_deeplab(
    backbone: Backbone, num_classes: int, *, thin: ThinConfig | None = None
) -> DeepLab:
    """Return a DeepLabV3 with fresh weights, drawn from torch's global generator.

    Args:
        backbone: ``resnet101`` and ``resnet50`` are torchvision's, with output stride 8.
        num_classes: number of classes, background included.
        thin: sizes of ``thin``; not used by the others.
    """
    if backbone == "thin":
        return _thin(thin or ThinConfig(), num_classes)
    net = getattr(segmentation, f"deeplabv3_{backbone}")(
        weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False
    )
    return DeepLab(net.backbone, net.classifier)


def _thin(config: ThinConfig, num_classes: int) -> DeepLab:
    backbone = ThinBackbone(config.trunk_width, output_stride=config.output_stride)
    width = config.head_width
    classifier = nn.Sequential(
        ASPP(backbone.channels[-1], list(config.rates), width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, num_classes, 1),
    )
    return DeepLab(backbone, classifier)
