"""Find the latent code whose image is closest to a given one.

The projector of StyleGAN2 (Karras et al. 2020, 1912.04958, appendix D) with the numbers of
StyleGAN2-ADA's code; space ``w+`` and the pixel term as in a widely used PyTorch port, whose
defaults ReGAN's projections follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.fewshot.image_distance import Distance
from raysweep.fewshot.projection_config import ProjectionConfig

__all__ = [
    "LatentProjection",
    "Projection",
    "ProjectionConfig",
    "disturbance",
    "latent_statistics",
    "learning_rate",
    "noise_regulariser",
    "renormalise",
]

SMALLEST_NOISE = 8  # px; the regulariser halves a noise map until it is no larger
MAPPING_CHUNK = 1000


class Synthesis(Protocol):
    """The part of a generator that paints."""

    def __call__(self, ws: torch.Tensor, noise: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map ``(batch, num_ws, w_dim)`` and one noise map per layer to ``(batch, 3, R, R)``."""

    def draw_noise(
        self, batch: int, *, generator: torch.Generator, device: torch.device
    ) -> Sequence[torch.Tensor]:
        """Draw one map ``(batch, 1, r, r)`` per layer."""


class LatentGenerator(Protocol):
    """What is asked of a generator: StyleGAN and StyleGAN2 have it."""

    @property
    def config(self) -> Any:
        """Settings, among them ``z_dim`` and ``num_ws``."""

    @property
    def mapping(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Map ``(batch, z_dim)`` to ``(batch, w_dim)``."""

    @property
    def synthesis(self) -> Synthesis:
        """From latents to images."""


class Projection(NamedTuple):
    """What was found.

    Attributes:
        ws: ``(batch, num_ws, w_dim)``.
        noise: one map ``(batch, 1, r, r)`` per layer, zero mean and unit variance.
        losses: ``(steps, batch)``, what was minimised, before each step.
    """

    ws: torch.Tensor
    noise: list[torch.Tensor]
    losses: torch.Tensor


def learning_rate(step: int, *, config: ProjectionConfig) -> float:
    """Return the learning rate of a step: linear from 0, flat, half a cosine towards 0."""
    t = step / config.steps
    up = min(t / config.ramp_up, 1.0) if config.ramp_up else 1.0
    down = min((1 - t) / config.ramp_down, 1.0) if config.ramp_down else 1.0
    return config.lr * up * 0.5 * (1 - math.cos(math.pi * down))


def disturbance(step: int, *, config: ProjectionConfig) -> float:
    """Return the standard deviation of the latent's disturbance, in units of its spread."""
    if not config.w_noise_ramp:
        return 0.0
    left = max(1 - step / config.steps / config.w_noise_ramp, 0.0)
    return config.w_noise * left**2


def noise_regulariser(noise: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how much noise maps resemble themselves one pixel further (1912.04958 eq. 7).

    Squared means of the products of a map with itself, moved by one pixel across and down with
    wrap-around; of each map and of its halved copies (2x2 means) until 8 px or fewer.

    Args:
        noise: maps ``(batch, 1, r, r)``.

    Returns:
        ``(batch,)``.
    """
    total = noise[0].new_zeros(len(noise[0]))
    for level in noise:
        while True:
            for axis in (2, 3):
                total = total + (level * level.roll(1, axis)).mean((1, 2, 3)).square()
            if level.shape[2] <= SMALLEST_NOISE:
                break
            level = F.avg_pool2d(level, 2)
    return total


@torch.no_grad()
def renormalise(noise: Sequence[torch.Tensor]) -> None:
    """Give each map ``(batch, 1, r, r)`` of each image zero mean and unit variance, in place."""
    for level in noise:
        level -= level.mean((1, 2, 3), keepdim=True)
        level *= level.square().mean((1, 2, 3), keepdim=True).rsqrt()


@torch.no_grad()
def latent_statistics(
    generator: LatentGenerator, *, config: ProjectionConfig, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean latent ``(w_dim,)`` and its spread, the root mean squared distance to it."""
    stream = rng.generator(config.seed, "mean_latent")
    z = torch.randn(config.mean_samples, generator.config.z_dim, generator=stream)
    ws = torch.cat([generator.mapping(part.to(device)) for part in z.split(MAPPING_CHUNK)])
    mean = ws.mean(0)
    return mean, (ws - mean).square().sum(1).mean().sqrt()


class LatentProjection:
    """Learner of the latents and noise maps of a batch of images, each image by itself.

    Randomness belongs to an image's number: a set gives the same results in any batches, up to
    rounding. The generator's own tensors get no gradient.

    Args:
        config: settings.
        generator: in eval mode.
        targets: ``(batch, 3, R, R)`` in [-1, 1].
        distance: how far two images are apart, see
            :mod:`raysweep.fewshot.image_distance`.
        device: where everything lives.
        first: number of the first image within the set that the batch is taken from.
    """

    def __init__(
        self,
        config: ProjectionConfig,
        *,
        generator: LatentGenerator,
        targets: torch.Tensor,
        distance: Distance,
        device: torch.device | str,
        first: int = 0,
    ) -> None:
        self.config, self.generator, self.distance = config, generator, distance
        self.device, self.first = torch.device(device), first
        self.targets = targets.to(self.device)
        mean, self.spread = latent_statistics(generator, config=config, device=self.device)
        self.num_ws = int(generator.config.num_ws)
        rows = 1 if config.space == "w" else self.num_ws
        self.w = mean.expand(len(targets), rows, -1).clone().requires_grad_()
        self.noise = self._first_noise()
        self.found = [self.w, *(self.noise if config.optimise_noise else [])]
        for tensor in self.found:
            tensor.requires_grad_()
        self.optimizer = torch.optim.Adam(self.found, lr=config.lr, fused=True)
        self.losses = torch.zeros(config.steps, len(targets), device=self.device)
        self.steps_taken = 0

    def _first_noise(self) -> list[torch.Tensor]:
        draw = self.generator.synthesis.draw_noise
        streams = [rng.generator(self.config.seed, "noise", image) for image in self._images()]
        drawn = [draw(1, generator=stream, device=self.device) for stream in streams]
        noise = [torch.cat(maps) for maps in zip(*drawn, strict=True)]
        renormalise(noise)
        return noise

    def _images(self) -> range:
        return range(self.first, self.first + len(self.targets))

    def _disturbed(self) -> torch.Tensor:
        scale = disturbance(self.steps_taken, config=self.config)
        if scale == 0:
            return self.w
        seed, step, shape = self.config.seed, self.steps_taken, self.w.shape[1:]
        streams = [rng.generator(seed, "w_noise", image, step) for image in self._images()]
        drawn = [torch.randn(shape, generator=stream) for stream in streams]
        return self.w + torch.stack(drawn).to(self.device) * (self.spread * scale)

    def step(self) -> dict[str, torch.Tensor]:
        """Update once.

        Returns:
            ``loss``, mean over the images, and ``lr``.

        Raises:
            ValueError: ``steps`` have been taken.
        """
        config = self.config
        if self.steps_taken >= config.steps:
            raise ValueError(f"steps = {config.steps}: all taken; raise it to go on")
        ws = self._disturbed().expand(-1, self.num_ws, -1)
        images = self.generator.synthesis(ws, noise=self.noise)
        losses = config.perceptual * self.distance(images, self.targets)
        if config.pixel:
            losses = losses + config.pixel * (images - self.targets).square().mean((1, 2, 3))
        if config.optimise_noise:
            losses = losses + config.regulariser * noise_regulariser(self.noise)
        lr = learning_rate(self.steps_taken, config=config)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        losses.sum().backward(inputs=self.found)
        self.optimizer.step()
        if config.optimise_noise:
            renormalise(self.noise)
        self.losses[self.steps_taken] = losses.detach()
        self.steps_taken += 1
        return {"loss": losses.detach().mean(), "lr": torch.tensor(lr)}

    def projection(self) -> Projection:
        """Return copies of what is found so far."""
        ws = self.w.detach().repeat(1, self.num_ws // self.w.shape[1], 1)
        noise = [level.detach().clone() for level in self.noise]
        return Projection(ws, noise, self.losses[: self.steps_taken].clone())
