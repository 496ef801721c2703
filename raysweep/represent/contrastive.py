"""What MoCo v2 and SimSiam share: settings, two views, optimiser, schedule."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from raysweep import collective, rng
from raysweep.config import Config, ConfigError
from raysweep.data import augment
from raysweep.nets.resnet import Trunk, TrunkConfig, build_trunk

Images = dict[str, torch.Tensor]
"""A batch ``{"image": (batch, 3, height, width) uint8}``."""


class ContrastiveConfig(Config):
    """Settings of every contrastive learner.

    Attributes:
        trunk: the network that is pretrained.
        optimizer: ``sgd`` with momentum (the papers) or ``adamw`` (small trunks, short runs).
        lr: peak learning rate.
        weight_decay: L2 for ``sgd``, decoupled for ``adamw``; on all tensors, as official.
        sgd_momentum: momentum of ``sgd``.
        warmup_steps: steps of linear warm-up.
        steps: optimiser steps of the whole training; the learning rate ends at 0.
        batch: images per step over all workers.
        resolution: side of the views in px.
        views: the augmentation.
        bn_groups: groups that a worker's batch is split into, each with its own batch-norm
            statistics; ``n`` on one worker stand for ``n`` workers.
        precision: ``bf16`` runs the network under autocast; the loss is always fp32.
        seed: seed of weights and views.
    """

    trunk: TrunkConfig = TrunkConfig()
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.03, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    sgd_momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=128, ge=2)
    resolution: int = Field(default=32, ge=1)
    views: augment.ViewConfig = augment.ViewConfig()
    bn_groups: int = Field(default=1, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    @model_validator(mode="after")
    def _fields_agree(self) -> ContrastiveConfig:
        if self.resolution < self.trunk.minimum_px:
            raise ConfigError(
                f"resolution = {self.resolution}: trunk {self.trunk.name!r} needs at least "
                f"{self.trunk.minimum_px} px"
            )
        if self.warmup_steps >= self.steps:
            raise ConfigError(
                f"warmup_steps = {self.warmup_steps}: must be less than steps = {self.steps}"
            )
        if self.batch % self.bn_groups or self.batch // self.bn_groups < 2:
            raise ConfigError(
                f"bn_groups = {self.bn_groups}: must divide batch = {self.batch} into groups of at "
                "least 2 images"
            )
        return self


def two_views(
    images: torch.Tensor, *, config: ContrastiveConfig, step: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two random views of each of this worker's images.

    The randomness of an image depends on its place in the global batch and on the step only.

    Args:
        images: ``(batch / workers, 3, height, width)`` uint8.
        config: the learner's settings.
        step: optimiser steps taken before this one.
        device: where the views are made.

    Returns:
        Two of ``(batch / workers, 3, resolution, resolution)`` float, in channels-last memory.

    Raises:
        ValueError: the number of images is not ``batch / workers``, or training is already over.
    """
    count, _, height, width = images.shape
    if count * collective.size() != config.batch or count % config.bn_groups:
        raise ValueError(
            f"got {count} images on each of {collective.size()} workers: expected batch = "
            f"{config.batch} in all, and a multiple of bn_groups = {config.bn_groups} on each"
        )
    if step >= config.steps:
        raise ValueError(f"steps = {config.steps}: all taken; raise it to train longer")
    own = slice(collective.rank() * count, (collective.rank() + 1) * count)
    generator = rng.generator(config.seed, "views", step)
    images = images.to(device)

    def view() -> torch.Tensor:
        draw = augment.draw_views(
            config.batch, height=height, width=width, config=config.views, generator=generator
        )
        made = augment.apply_views(
            images, draw.part(own), px=config.resolution, config=config.views
        )
        return made.contiguous(memory_format=torch.channels_last)

    return view(), view()


def seeded_trunk(config: ContrastiveConfig) -> Trunk:
    """Return the trunk with the weights that belong to the seed."""
    with rng.seeded(config.seed, "trunk"):
        return build_trunk(config.trunk)


def autocast(config: ContrastiveConfig, *, device: torch.device) -> torch.autocast:
    """Return the context in which the network runs: bf16 arithmetic where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def build_optimizer(
    config: ContrastiveConfig, groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Return the optimiser over parameter groups; its learning rate is set before each step."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.sgd_momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(step: int, *, peak: float, config: ContrastiveConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to 0.

    Deviation: the official codes change it once per epoch and have no warm-up (MoCo 1911.05722
    ``adjust_learning_rate`` with ``--cos``, SimSiam 2011.10566 section 4).
    """
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def in_groups(images: torch.Tensor, groups: int) -> tuple[torch.Tensor, ...]:
    """Split a batch ``(batch, ...)`` into equal consecutive groups; ``groups`` divides it."""
    return images.chunk(groups)


def trunk_state(trunk: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of a trunk's tensors, later training does not change them."""
    return {name: tensor.detach().clone() for name, tensor in trunk.state_dict().items()}
