"""StyleGAN2 training with lazy regularisation and adaptive augmentation.

Karras et al. 2020 (1912.04958) and 2020 (2006.06676), phases in the order of the official code:
generator, path length, discriminator, R1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from raysweep import collective, micro, rng
from raysweep.micro import Metrics
from raysweep.nets.gans import Discriminator, Generator, build_discriminator, build_generator
from raysweep.represent import gan_losses as losses
from raysweep.represent.ada import AdaController, apply_augmentation
from raysweep.represent.config import RepresentConfig
from raysweep.represent.contrastive import Images
from raysweep.represent.gan_draws import draw_directions, draw_latents, draw_transforms
from raysweep.represent.gan_share import Share

BETAS = (0.0, 0.99)
PENALTIES = ("path", "r1")


class Phase(NamedTuple):
    """A kind of update: which network, how often, and by which loss.

    Attributes:
        loss: of this worker's images in work, and further metrics that fall out on the way.
        before: what has to be known of all images before the first of several parts.
    """

    name: str
    network: Generator | Discriminator
    interval: int
    loss: Callable[[torch.Tensor], tuple[torch.Tensor, Metrics]]
    before: Callable[[], None] | None = None


class Gan:
    """Learner of StyleGAN2.

    Several workers share the batch: gradients, w_avg, path length and augmentation statistics are
    those of all images, so the losses are those of one worker with the whole batch, except that the
    minibatch standard deviation groups images of one worker. Gradients are averaged by hand, since
    data-parallel wrappers do not see the gradients inside R1 and path length.

    The same holds of a step in parts (:mod:`raysweep.micro`): the minibatch standard deviation
    compares images of one part, two or more of them, and whole groups where there are as many as
    parts. The path length's mean is that of all images, as in one piece: a first pass measures
    the lengths, a second one takes their penalty.

    Deviations from the official code: every image draws its own style-mixing crossover, and the
    mean path length is a constant in the penalty's gradient.

    Args:
        config: settings; reads ``seed`` and ``gan``.
        device: where the networks live.
    """

    def __init__(self, config: RepresentConfig, *, device: torch.device | str) -> None:
        self.config, self.gan = config, config.gan
        self.device = torch.device(device)
        with rng.seeded(config.seed, "generator"):
            self.generator = build_generator(config.network).to(self.device).train()
        with rng.seeded(config.seed, "discriminator"):
            self.discriminator = build_discriminator(config.network).to(self.device).train()
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.path_mean = torch.zeros((), device=self.device)
        self.ada = AdaController(self.gan.ada)
        self.phases = self._phases()
        lazy = {phase.network: phase.interval for phase in self.phases if phase.name in PENALTIES}
        self.optimizers = {
            network: _lazy_adam(network, lr=self.gan.lr, interval=lazy.get(network))
            for network in (self.generator, self.discriminator)
        }
        self.share = Share()
        self.steps_taken = 0

    def _phases(self) -> list[Phase]:
        gan, g, d = self.gan, self.generator, self.discriminator
        phases = [
            Phase("generator", g, 1, self._generator_loss),
            Phase("path", g, gan.path_interval, self._path_loss, self._measure_paths),
            Phase("discriminator", d, 1, self._discriminator_loss),
            Phase("r1", d, gan.r1_interval, self._r1_loss),
        ]
        off = {"path": gan.path_weight == 0, "r1": gan.r1_gamma == 0}
        return [phase for phase in phases if not off.get(phase.name, False)]

    @property
    def kimg(self) -> float:
        """Thousands of real images shown so far."""
        return self.steps_taken * self.gan.batch / 1000

    def step(self, batch: Images) -> Metrics:
        """Run the phases that are due.

        Args:
            batch: ``{"image": (batch / workers, 3, resolution, resolution) uint8}``.

        Returns:
            ``loss/<phase>`` of the phases that ran, of this worker's images and without the factor
            of lazy regularisation; ``sign``, the mean sign of real logits; ``p`` of the
            augmentation.

        Raises:
            FloatingPointError: a loss is not finite; names the phase and kimg.
            ValueError: wrong number or size of images.
        """
        images = self._checked(batch["image"]).to(self.device).float() / 127.5 - 1
        found: Metrics = {}
        for phase in self.phases:
            if self.steps_taken % phase.interval == 0:
                found |= self.update(phase, images)
        self._follow()
        self.steps_taken += 1
        self.ada.step()
        return {**found, "p": torch.tensor(self.ada.p, device=self.device)}

    def update(self, phase: Phase, images: torch.Tensor) -> Metrics:
        """Run one phase on this worker's images, float in [-1, 1]; return loss and metrics."""
        self.generator.requires_grad_(phase.network is self.generator)
        self.discriminator.requires_grad_(phase.network is self.discriminator)
        optimizer = self.optimizers[phase.network]
        optimizer.zero_grad()
        self.share = Share(self._parts(phase))
        if self.share.divided and phase.before is not None:
            phase.before()
        found = micro.accumulate(self.share.parts, lambda rows: self._loss(phase, images, rows))
        self.share.finish()
        self.share = Share()
        _average_gradients(phase.network.parameters())
        optimizer.step()
        return found

    def _parts(self, phase: Phase) -> list[slice]:
        workers, group = collective.size(), self.config.network.mbstd_group
        if phase.name == "path":  # nothing is judged
            return micro.parts(self.gan.batch // self.gan.path_shrink // workers)
        return micro.parts(self.gan.batch // workers, least=min(2, group), group=group)

    def _loss(
        self, phase: Phase, images: torch.Tensor, rows: slice
    ) -> tuple[torch.Tensor, Metrics]:
        self.share.rows = rows
        loss, metrics = phase.loss(images[rows])
        if not loss.isfinite():
            raise FloatingPointError(
                f"{phase.name} loss is {loss.item()} at {self.kimg:.3f} kimg; lower "
                "pretrain.gan.lr or raise pretrain.gan.r1_gamma"
            )
        return loss * phase.interval, {f"loss/{phase.name}": loss.detach(), **metrics}

    def _generator_loss(self, images: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        fake = self.generator.synthesis(*self._latents("generator", self.gan.batch))
        return losses.generator_loss(self._judge(fake, "generator")), {}

    def _path_loss(self, images: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        lengths = self._path_lengths()
        if not self.share.divided:
            self._follow_paths(lengths.detach())
        return self.gan.path_weight * (lengths - self.path_mean).square().mean(), {}

    def _measure_paths(self) -> None:
        lengths = []
        for rows in self.share.parts:
            self.share.rows = rows
            lengths.append(self._path_lengths().detach())
        self._follow_paths(torch.cat(lengths))

    def _path_lengths(self) -> torch.Tensor:
        count, step = self.gan.batch // self.gan.path_shrink, self.steps_taken
        ws, noise = self._latents("path", count)
        fake = self.generator.synthesis(ws, noise)
        directions = self.share.once(
            "directions", lambda: draw_directions(self.config, step=step, count=count)
        )
        return losses.path_lengths(fake, ws, directions[self.share.rows].to(self.device))

    def _follow_paths(self, lengths: torch.Tensor) -> None:
        """Move the mean path length towards the mean of all workers' images."""
        self.path_mean.lerp_(collective.mean(lengths.mean()), self.gan.path_decay)

    def _discriminator_loss(self, images: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        with torch.no_grad():
            fake = self.generator.synthesis(*self._latents("discriminator", self.gan.batch))
        fake_logits = self._judge(fake, "fake")
        real_logits = self._judge(images, "real")
        self.ada.observe(real_logits.detach())
        loss = losses.discriminator_loss(fake_logits, real_logits)
        return loss, {"sign": real_logits.detach().sign().mean()}

    def _r1_loss(self, images: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        images = images.detach().requires_grad_()
        penalty = losses.r1_penalty(self._judge(images, "r1"), images)
        return self.gan.r1_gamma / 2 * penalty.mean(), {}

    def _judge(self, images: torch.Tensor, which: str) -> torch.Tensor:
        """Return the discriminator's logits for this worker's images in work, augmented."""
        if self.gan.ada.enabled and self.ada.p > 0:
            p, step = self.ada.p, self.steps_taken
            draw = self.share.once(which, lambda: draw_transforms(self.config, which, p, step=step))
            images = apply_augmentation(images, draw.part(self.share.rows))
        logits: torch.Tensor = self.discriminator(images)
        return logits

    def _latents(self, phase: str, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return mixed w rows and noise of this worker's images in work, of ``count`` in all."""
        ws, noise = self.share.once("latents", lambda: self._map_latents(phase, count))
        rows = self.share.rows
        return ws[rows], [each[rows].to(self.device) for each in noise]

    def _map_latents(self, phase: str, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return w rows on the device and noise on the CPU of all of this worker's images."""
        network = self.generator
        draw = draw_latents(
            self.config,
            phase,
            step=self.steps_taken,
            count=count,
            num_ws=network.config.num_ws,
            noise_shapes=network.synthesis.noise_shapes,
        )
        first, second = (network.mapping(codes.to(self.device)) for codes in draw.codes)
        network.mapping.track(collective.gather(first.detach()))
        is_first = draw.is_first.to(self.device)[..., None]
        return self.share.cut(torch.where(is_first, first[:, None], second[:, None])), draw.noise

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged generator (half-life ``ema_kimg``); buffers are copied."""
        images = self.gan.ema_kimg * 1000
        if self.gan.ema_rampup is not None:
            images = min(images, self.kimg * 1000 * self.gan.ema_rampup)
        keep = 0.5 ** (self.gan.batch / images) if images else 0.0
        average, current = self.average, self.generator
        torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - keep)
        for ours, theirs in zip(average.buffers(), current.buffers(), strict=True):
            ours.copy_(theirs)

    def _checked(self, images: torch.Tensor) -> torch.Tensor:
        px, workers = self.config.network.resolution, collective.size()
        if images.shape != (self.gan.batch // workers, 3, px, px) or self.gan.batch % workers:
            raise ValueError(
                f"got images {tuple(images.shape)} on each of {workers} workers: expected batch = "
                f"{self.gan.batch} in all, at {px} px"
            )
        return images

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers.values()],
            "path_mean": self.path_mean,
            "ada": self.ada.state_dict(),
            "step": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers.values(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.path_mean.copy_(state["path_mean"])
        self.ada.load_state_dict(state["ada"])
        self.steps_taken = state["step"]


def _lazy_adam(network: nn.Module, *, lr: float, interval: int | None) -> torch.optim.Adam:
    """Return Adam corrected for an extra step every ``interval``, if any (1912.04958 app. B)."""
    share = 1.0 if interval is None else interval / (interval + 1)
    betas = (BETAS[0] ** share, BETAS[1] ** share)
    return torch.optim.Adam(network.parameters(), lr=lr * share, betas=betas, eps=1e-8, fused=True)


def _average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over the workers."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = collective.mean_gradient(parameter.grad)
