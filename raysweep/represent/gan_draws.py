"""What a step of StyleGAN training draws, by names, seed and step.

Everything is drawn for the batch of all workers and cut to this worker's share, so that an image's
draws do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from raysweep import collective, rng
from raysweep.represent.ada import AugmentationDraw, draw_augmentation
from raysweep.represent.config import RepresentConfig


class LatentDraw(NamedTuple):
    """Two codes per image, which of them rules each row of w, and noise; all on the CPU.

    Attributes:
        codes: two of ``(images, z_dim)``, standard normal.
        is_first: ``(images, num_ws)`` bool, rows of w that the first code rules.
        noise: ``(images, 1, side, side)`` per layer, standard normal.
    """

    codes: list[torch.Tensor]
    is_first: torch.Tensor
    noise: list[torch.Tensor]


def draw_latents(
    config: RepresentConfig,
    phase: str,
    *,
    step: int,
    count: int,
    num_ws: int,
    noise_shapes: Sequence[tuple[int, ...]],
) -> LatentDraw:
    """Draw what ``count`` images of all workers are made from.

    Args:
        config: reads ``seed`` and ``gan``.
        phase: name of the phase that makes them.
        step: steps taken before.
        count: number of images, of all workers.
        num_ws: rows of w per image.
        noise_shapes: shape of one image's noise, for each layer.
    """
    generator = rng.generator(config.seed, "latents", phase, step)
    codes = torch.randn((2, count, config.network.z_dim), generator=generator)
    mixed = torch.rand(count, generator=generator) < config.gan.mixing
    crossover = torch.randint(1, num_ws, (count,), generator=generator)
    crossover = torch.where(mixed, crossover, num_ws)
    noise = [
        collective.share(torch.randn((count, *shape), generator=generator))
        for shape in noise_shapes
    ]
    is_first = torch.arange(num_ws) < collective.share(crossover)[:, None]
    return LatentDraw([collective.share(each) for each in codes], is_first, noise)


def draw_directions(config: RepresentConfig, *, step: int, count: int) -> torch.Tensor:
    """Draw directions of the path length for ``count`` images of all workers, of their shape."""
    generator, px = rng.generator(config.seed, "path direction", step), config.network.resolution
    return collective.share(torch.randn((count, 3, px, px), generator=generator))


def draw_transforms(
    config: RepresentConfig, which: str, p: float, *, step: int
) -> AugmentationDraw:
    """Draw the augmentation of the images of one judgement.

    Args:
        config: reads ``seed`` and ``gan``.
        which: name of the judgement.
        p: probability of each transform.
        step: steps taken before.
    """
    draw = draw_augmentation(
        config.gan.batch,
        p,
        height=config.network.resolution,
        width=config.network.resolution,
        config=config.gan.ada,
        generator=rng.generator(config.seed, "augment", which, step),
    )
    return draw.part(collective.own(config.gan.batch))
