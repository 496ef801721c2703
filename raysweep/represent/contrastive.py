"""What MoCo v2 and SimSiam share: two views, optimiser, schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from raysweep import collective, rng
from raysweep.data import augment
from raysweep.nets.resnet import Trunk, build_trunk
from raysweep.represent.config import RepresentConfig

Images = dict[str, torch.Tensor]
"""A batch ``{"image": (batch, 3, height, width) uint8}``."""


def two_views(
    images: torch.Tensor,
    *,
    config: RepresentConfig,
    step: int,
    device: torch.device,
    memory_format: torch.memory_format,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two random views of each of this worker's images.

    The randomness of an image depends on its place in the global batch and on the step only.

    Args:
        images: ``(batch / workers, 3, height, width)`` uint8.
        config: the learner's settings.
        step: optimiser steps taken before this one.
        device: where the views are made.
        memory_format: how they lie in memory.

    Returns:
        Two of ``(batch / workers, 3, resolution, resolution)`` float.

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
    own = collective.own(config.batch)
    generator = rng.generator(config.seed, "views", step)
    images = images.to(device)

    def view() -> torch.Tensor:
        draw = augment.draw_views(
            config.batch, height=height, width=width, config=config.views, generator=generator
        )
        made = augment.apply_views(
            images, draw.part(own), px=config.resolution, config=config.views
        )
        return made.contiguous(memory_format=memory_format)

    return view(), view()


def seeded_trunk(config: RepresentConfig) -> Trunk:
    """Return the trunk with the weights that belong to the seed."""
    with rng.seeded(config.seed, "trunk"):
        return build_trunk(config.trunk)


def autocast(config: RepresentConfig, *, device: torch.device) -> torch.autocast:
    """Return the context in which the network runs: bf16 arithmetic where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def build_optimizer(config: RepresentConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
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


def learning_rate(step: int, *, peak: float, config: RepresentConfig) -> float:
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
