"""Fit a projector on a frozen representation with a handful of labelled images.

GanOrCon 4.2 and appendix D. Where the paper and its released code disagree, the docstring of
:class:`FitConfig` says which one the default follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from raysweep import micro, rng
from raysweep.config import Config, ConfigError, to_dict
from raysweep.data.joint import JointConfig, joint
from raysweep.data.sampling import batch_indices
from raysweep.features.representation import Representation
from raysweep.fewshot import matching_config
from raysweep.fewshot.inputs import clean_masks, prepared, resized_masks
from raysweep.fewshot.matching_config import MatchingConfig
from raysweep.fewshot.pixel_classifier import PixelFitConfig
from raysweep.learner import Batch, identity
from raysweep.nets.projectors import ProjectorConfig, build_projector

PREDICT_BATCH = 16
READ_BY_ENSEMBLE = ("pixel", "layers", "resolution", "clean_pixels")


class FitConfig(Config):
    """How a projector is fitted.

    Attributes:
        method: ``projector`` fits one network on whole images; ``pixel_ensemble`` DatasetGAN's
            ten MLPs on single pixels, which reads only ``layers``, ``resolution``,
            ``clean_pixels`` and ``pixel``; ``matching`` an annotator of a generator's images,
            which reads only ``matching``.
        matching: settings of gradient matching and its rivals.
        pixel: settings of the ensemble.
        projector: the architecture.
        layers: names of the generator's modules whose outputs are the features, fine to coarse;
            all convolutions if left out. Only generators have them.
        resolution: side in pixels at which the loss is taken.
        steps: optimiser steps. The paper counts epochs: 800 for MLP, 200 for CONV.
        batch: images per step; 2 in the paper.
        lr: peak learning rate; in the paper 0.001 for MLP and 0.0005 for CONV.
        beta1: of Adam; 0.5 in the released code, which the paper does not mention.
        weight_decay: L2, added to the gradient; 0.0005 in paper and code.
        lr_floor: the cosine schedule ends at this fraction of ``lr``; 0.0008 in the released code.
            Deviation: the schedule moves every step, not every epoch.
        augment: joint augmentation of image and mask; the default is the released code's.
        shuffle: draw images in random order; the released code goes through them in order.
        clean_pixels: classes with fewer pixels than this in a training mask become background
            (30 in DatasetGAN and LAGM, 0 = never in GanOrCon).
        checkpoints: number of candidates kept, evenly spaced, the last at the end.
        precision: ``bf16`` runs representation and projector under autocast.
        seed: seed of weights, order and augmentation.
    """

    method: Literal["projector", "pixel_ensemble", "matching"] = "projector"
    matching: MatchingConfig = MatchingConfig()
    pixel: PixelFitConfig = PixelFitConfig()
    projector: ProjectorConfig = ProjectorConfig()
    layers: tuple[str, ...] | None = None
    resolution: int = Field(default=64, ge=1)
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=2, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    beta1: float = Field(default=0.5, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    lr_floor: float = Field(default=8e-4, ge=0, le=1)
    augment: JointConfig = JointConfig()
    shuffle: bool = True
    clean_pixels: int = Field(default=0, ge=0)
    checkpoints: int = Field(default=4, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    @model_validator(mode="after")
    def _fields_agree(self) -> FitConfig:
        if self.checkpoints > self.steps:
            raise ConfigError(
                f"checkpoints = {self.checkpoints}: at most one per step, steps = {self.steps}"
            )
        if self.resolution < self.projector.minimum_px:
            raise ConfigError(
                f"resolution = {self.resolution}: projector {self.projector.kind!r} pools down to "
                f"one pixel and needs {self.projector.minimum_px} px or more"
            )
        return self

    def relevant(self) -> dict[str, Any]:
        """Return only the settings that the method reads: what a stage's key is made of."""
        data = to_dict(self)
        if self.method == "matching":
            return {"method": self.method, "matching": self.matching.relevant()}
        if self.method == "projector":
            return {key: value for key, value in data.items() if key not in ("pixel", "matching")}
        return {key: data[key] for key in ("method", *READ_BY_ENSEMBLE)}


def candidate_steps(config: FitConfig) -> tuple[int, ...]:
    """Return the steps after which a candidate checkpoint is kept, ascending.

    Of the pixel ensemble only the end is kept, whose number of steps is not known before: 0.
    """
    if config.method == "pixel_ensemble":
        return (0,)
    if config.method == "matching":
        return matching_config.candidate_steps(config.matching)
    count = config.checkpoints
    return tuple(config.steps * (index + 1) // count for index in range(count))


def learning_rate(step: int, *, config: FitConfig) -> float:
    """Return the learning rate of a step: half a cosine from ``lr`` to ``lr * lr_floor``."""
    floor = config.lr * config.lr_floor
    return floor + (config.lr - floor) * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def fit_batch(inputs: torch.Tensor, masks: torch.Tensor, *, step: int, config: FitConfig) -> Batch:
    """Return the batch of a step.

    Args:
        inputs: the labelled images ``(shots, 3, height, width)`` uint8, or their codes in a
            generator ``(shots, length)`` float.
        masks: their masks ``(shots, height, width)`` uint8.
        step: steps taken before.
        config: batch size, order and seed.
    """
    if config.shuffle:
        chosen = batch_indices(step, count=len(inputs), batch=config.batch, seed=config.seed)
    else:
        start = step * config.batch
        chosen = torch.arange(start, start + config.batch) % len(inputs)
    return {"input": inputs[chosen], "mask": masks[chosen]}


class ProjectorFit:
    """Learner of a projector; the representation stays as it is.

    Steps may be taken in parts (:mod:`raysweep.micro`); a projector with batch norm takes two or
    more images at a time.

    Args:
        config: settings.
        representation: frozen features.
        num_classes: number of classes, background included.
        flip_pairs: pairs of classes, left and right, that a horizontal flip exchanges.
        device: where everything lives.
        wrap: receives the projector, e.g. to make it data-parallel.
    """

    def __init__(
        self,
        config: FitConfig,
        *,
        representation: Representation,
        num_classes: int,
        flip_pairs: Sequence[tuple[int, int]] = (),
        device: torch.device | str,
        wrap: Callable[[nn.Module], nn.Module] = identity,
    ) -> None:
        self.config, self.representation = config, representation
        self.flip_pairs, self.device = flip_pairs, torch.device(device)
        with rng.seeded(config.seed, "projector"):
            projector = build_projector(config.projector, representation.channels, num_classes)
        self.projector = projector.to(self.device).to(memory_format=torch.channels_last).train()
        self.forward = wrap(self.projector)
        has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in projector.modules())
        self.least = 2 if has_batch_norm else 1
        self.optimizer = torch.optim.Adam(
            self.projector.parameters(),
            lr=config.lr,
            betas=(config.beta1, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.steps_taken = 0

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Update once.

        Args:
            batch: ``input`` ``(batch, 3, height, width)`` uint8, or codes ``(batch, length)``
                float, and ``mask`` ``(batch, height, width)`` uint8, as :func:`fit_batch` makes
                them.

        Returns:
            ``loss``, pixel ``accuracy`` in [0, 1] and ``lr``.
        """
        config = self.config
        inputs, masks = self._augmented(
            batch["input"].to(self.device),
            clean_masks(batch["mask"], config.clean_pixels).to(self.device),
        )
        lr = learning_rate(self.steps_taken, config=config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        found = micro.accumulate(
            micro.parts(len(inputs), least=self.least),
            lambda part: self._loss(inputs[part], masks[part]),
            wrapped=self.forward,
        )
        self.optimizer.step()
        self.steps_taken += 1
        return {**found, "lr": torch.tensor(lr)}

    def _loss(
        self, inputs: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, micro.Metrics]:
        config = self.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits = self.forward(self.representation(inputs), config.resolution)
        loss = F.cross_entropy(logits.float(), masks)
        accuracy = (logits.detach().argmax(1) == masks).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    def _augmented(
        self, inputs: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and int64 masks at the fit's resolution; codes have no augmentation."""
        if self.representation.takes_codes:
            return inputs, resized_masks(masks, self.config.resolution)
        return joint(
            inputs,
            masks,
            px=self.config.resolution,
            config=self.config.augment,
            generator=rng.generator(self.config.seed, "augment", self.steps_taken),
            flip_pairs=self.flip_pairs,
        )

    def projector_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the projector's tensors, contiguous and on the CPU."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.projector.state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while fitting."""
        return {
            "projector": self.projector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.projector.load_state_dict(state["projector"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_taken = state["steps_taken"]


@torch.no_grad()
def predict(
    representation: Representation,
    projector: nn.Module,
    inputs: torch.Tensor,
    *,
    resolution: int,
    out_px: int | tuple[int, int],
) -> torch.Tensor:
    """Label images, or codes of images, with a fitted projector.

    Images are squeezed to the resolution of the fit; its scores are upsampled to the size asked
    for (bilinear, ``align_corners=False``) before the best class is taken (GanOrCon appendix E).

    Args:
        representation: the features that the projector was fitted on.
        projector: in eval mode.
        inputs: ``(count, 3, height, width)`` uint8, or codes ``(count, length)`` float.
        resolution: side in pixels at which the projector was fitted.
        out_px: side, or height and width, of the result.

    Returns:
        ``(count, height, width)`` uint8 labels on the CPU.
    """
    size = (out_px, out_px) if isinstance(out_px, int) else out_px
    device = next(projector.parameters()).device
    labels = []
    for part in inputs.split(micro.rows_at_once(PREDICT_BATCH)):
        levels = representation(prepared(representation, part.to(device), resolution))
        scores = projector(levels, resolution)
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        labels.append(scores.argmax(1).to("cpu", torch.uint8))
    return torch.cat(labels)
