"""DatasetGAN's annotator: ten small MLPs on single pixels of a hypercolumn, fitted side by side.

2104.06490 section 3.1 and its released code. That code stores the hypercolumn of every pixel; here
a step gathers the features of its own pixels only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch.nn import functional as F

from raysweep import rng
from raysweep.config import Config, ConfigError
from raysweep.fewshot.ensemble import Ensemble
from raysweep.learner import Batch
from raysweep.nets.pixel_mlps import PixelMlp, StackedPixelMlps, pixel_widths

PASSES_BEFORE_STOPPING = 4


class PixelFitConfig(Config):
    """How the ensemble is fitted; the defaults are the released code's.

    Attributes:
        members: number of MLPs; they differ in weights and in the order of pixels.
        widths: channels of the two hidden layers; left out, (128, 32) below 32 classes, else
            (256, 128).
        batch: pixels per step and member. Deviation: a batch may cross the border between two
            passes, where the released code makes a smaller one.
        lr: of Adam, constant.
        epochs: passes over all pixels at most.
        patience: from the fifth pass on a member is done after more than this many steps without a
            new lowest loss of a single step.
        seed: seed of weights and order.
    """

    members: int = Field(default=10, ge=1)
    widths: tuple[int, ...] | None = Field(default=None)
    batch: int = Field(default=64, ge=2)
    lr: float = Field(default=1e-3, gt=0)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=50, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _two_widths(self) -> PixelFitConfig:
        if self.widths is not None and (len(self.widths) != 2 or min(self.widths) < 1):
            raise ConfigError(
                f"widths = {self.widths}: the MLP takes 2 positive numbers, e.g. "
                f"{list(pixel_widths(2))}"
            )
        return self


def sample_hypercolumn(
    levels: Sequence[torch.Tensor],
    image_index: torch.Tensor,
    y: torch.Tensor,
    x: torch.Tensor,
    px: int,
) -> torch.Tensor:
    """Return single pixels of :func:`raysweep.nets.hypercolumn.hypercolumn` at ``(px, px)``.

    Args:
        levels: maps ``(images, channel_l, height_l, width_l)``, shallow to deep; fastest if in
            channels-last memory.
        image_index: ``(...)`` int64, which image.
        y: ``(...)`` int64, row of the output.
        x: ``(...)`` int64, column of the output.
        px: side of the output.

    Returns:
        ``(..., sum of channel_l)`` float32 (float64 for float64 levels), deepest level first.
    """
    parts = []
    for level in reversed(levels):
        top, bottom, down = _between(y, level.shape[2], px)
        left, right, across = _between(x, level.shape[3], px)
        exact = torch.promote_types(level.dtype, torch.float32)
        across, down = across.to(exact).unsqueeze(-1), down.to(exact).unsqueeze(-1)
        above, below = (
            torch.lerp(
                level[image_index, :, row, left].to(exact),
                level[image_index, :, row, right].to(exact),
                across,
            )
            for row in (top, bottom)
        )
        parts.append(torch.lerp(above, below, down))
    return torch.cat(parts, dim=-1)


def _between(at: torch.Tensor, size: int, px: int) -> tuple[torch.Tensor, ...]:
    """Return the two pixels of a level that an output pixel lies between, and the second's part."""
    centre = ((at.double() + 0.5) * (size / px) - 0.5).clamp(min=0)
    before = centre.long()
    return before, (before + 1).clamp(max=size - 1), centre - before


class PixelBatches:
    """Draws each member's pixels from the labelled images; pixels of all images are mixed.

    Args:
        levels: maps of the labelled images ``(images, channel_l, height_l, width_l)``, shallow to
            deep, in any floating type.
        masks: ``(images, px, px)`` uint8.
        config: members, batch size and seed.

    Raises:
        ValueError: masks are not square, or their number is not that of the maps.
    """

    def __init__(
        self, levels: Sequence[torch.Tensor], masks: torch.Tensor, *, config: PixelFitConfig
    ) -> None:
        if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or len(masks) != len(levels[0]):
            raise ValueError(
                f"masks have shape {tuple(masks.shape)}: expected ({len(levels[0])}, px, px)"
            )
        self.config, self.px = config, masks.shape[1]
        self.levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
        self.labels = masks.flatten().to(levels[0].device)
        self.pixels = len(self.labels)
        self._orders: dict[int, list[torch.Tensor]] = {}  # of the passes that a batch lies in

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, a pure function of it.

        Args:
            step: steps taken before.

        Returns:
            ``feature`` ``(members, batch, sum of channel_l)`` float and ``label``
            ``(members, batch)`` int64.
        """
        start = step * self.config.batch
        positions = torch.arange(start, start + self.config.batch)
        passes = positions // self.pixels
        wanted = passes.unique().tolist()
        self._orders = {number: self._order(number) for number in wanted}
        rows = [
            torch.cat([self._orders[n][i][positions[passes == n] % self.pixels] for n in wanted])
            for i in range(self.config.members)
        ]
        pixel = torch.stack(rows).long().to(self.labels.device)
        area = self.px**2
        image, y, x = pixel // area, pixel % area // self.px, pixel % self.px
        feature = sample_hypercolumn(self.levels, image, y, x, self.px)
        return {"feature": feature, "label": self.labels[pixel].long()}

    def _order(self, number: int) -> list[torch.Tensor]:
        if number in self._orders:
            return self._orders[number]
        return [
            torch.randperm(
                self.pixels,
                generator=rng.generator(self.config.seed, "pixels", member, number),
                dtype=torch.int32 if self.pixels < 2**31 else torch.int64,
            )
            for member in range(self.config.members)
        ]


class PixelEnsembleFit:
    """Learner of the ensemble: ``while not fit.done: fit.step(batches.batch(fit.steps_taken))``.

    Members are independent of each other. One that is done keeps its tensors while the others go
    on. It trains in one process: the work is too small to be divided.

    Args:
        config: settings.
        channels: channels of each level, shallow to deep.
        num_classes: number of classes, background included.
        pixels: number of labelled pixels, which make one pass (``PixelBatches.pixels``).
        device: where everything lives.
    """

    def __init__(
        self,
        config: PixelFitConfig,
        *,
        channels: Sequence[int],
        num_classes: int,
        pixels: int,
        device: torch.device | str,
    ) -> None:
        self.config, self.channels, self.num_classes = config, tuple(channels), num_classes
        self.pixels, self.device = pixels, torch.device(device)
        self.widths = config.widths or pixel_widths(num_classes)
        sizes = (sum(channels), *self.widths, num_classes)
        self.mlps = StackedPixelMlps(sizes, members=config.members, seed=config.seed).to(
            self.device
        )
        self.optimizer = torch.optim.Adam(self.mlps.parameters(), lr=config.lr, fused=True)
        self.steps_taken = 0
        self.lowest = torch.full((config.members,), math.inf, device=self.device)
        self.waited = torch.zeros(config.members, dtype=torch.long, device=self.device)
        self.finished: dict[int, dict[str, torch.Tensor]] = {}

    @property
    def done(self) -> bool:
        """Whether all members are done, or all passes are over."""
        over = self.steps_taken * self.config.batch >= self.config.epochs * self.pixels
        return over or len(self.finished) == self.config.members

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Update once.

        Args:
            batch: as :meth:`PixelBatches.batch` makes it.

        Returns:
            ``loss`` and ``accuracy`` in [0, 1], means over all members; ``training``, the number of
            members that are not done.

        Raises:
            ValueError: fitting is over.
        """
        if self.done:
            raise ValueError(f"fitting is over after {self.steps_taken} steps: raise epochs")
        labels = batch["label"].to(self.device)
        logits = self.mlps(batch["feature"].to(self.device))
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses = losses.view_as(labels).mean(1)
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        if self.steps_taken * self.config.batch >= PASSES_BEFORE_STOPPING * self.pixels:
            self._stop(losses.detach())
        self.steps_taken += 1
        return {
            "loss": losses.detach().mean(),
            "accuracy": (logits.detach().argmax(2) == labels).float().mean(),
            "training": torch.tensor(self.config.members - len(self.finished)),
        }

    def _stop(self, losses: torch.Tensor) -> None:
        better = losses < self.lowest
        self.lowest = torch.where(better, losses, self.lowest)
        self.waited = torch.where(better, 0, self.waited + 1)
        for member in (self.waited > self.config.patience).nonzero().flatten().tolist():
            if member not in self.finished:
                self.finished[member] = self.mlps.member_tensors(member)

    def ensemble(self) -> Ensemble:
        """Return the members as they are now, or as they were when they were done, to predict."""
        members = []
        for index in range(self.config.members):
            with torch.device("meta"):
                member = PixelMlp(self.channels, self.widths, self.num_classes)
            tensors = self.finished.get(index, self.mlps.member_tensors(index))
            member.load_state_dict(tensors, assign=True)
            members.append(member.eval().requires_grad_(False))
        return Ensemble(members)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while fitting."""
        return {
            "mlps": self.mlps.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps_taken": self.steps_taken,
            "lowest": self.lowest,
            "waited": self.waited,
            "finished": self.finished,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.mlps.load_state_dict(state["mlps"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_taken = state["steps_taken"]
        self.lowest = state["lowest"].to(self.device)
        self.waited = state["waited"].to(self.device)
        self.finished = {
            member: {name: tensor.to(self.device) for name, tensor in tensors.items()}
            for member, tensors in state["finished"].items()
        }
