"""Train an ordinary segmentation network on a teacher's labels.

Hard labels as in DatasetGAN, GanOrCon and LAGM: DeepLabV3, Adam at a constant 0.001, batch 8, no
augmentation. Soft labels as in ReGAN: U-Net, batch 32, weight decay 0.001, gradients clipped by
value to 0.1, learning rate lowered when validation stands still for 20 epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from raysweep import collective, rng
from raysweep.config import Config, ConfigError
from raysweep.data.augment import JointConfig
from raysweep.distill import targets
from raysweep.distill.targets import Targets
from raysweep.learner import Batch, identity
from raysweep.nets.deeplab import DeepLab, ThinConfig, build_deeplab, seed_dropout
from raysweep.nets.resnet import STAGE_STRIDE
from raysweep.nets.unet import UNet, UnetConfig

Network = Literal["deeplab_resnet101", "deeplab_resnet50", "deeplab_thin", "unet"]

PREDICT_BATCH = 16


class StudentConfig(Config):
    """Which student, and how it is trained; by default GanOrCon's for faces.

    Deviations from ReGAN: its affine augmentation is not offered, ``augment`` crops; images are
    normalised by ImageNet's mean and std for every network.

    Attributes:
        network: DeepLabV3 on ResNet-101 (the papers), ResNet-50 or a thin trunk, or a U-Net.
        thin: sizes of ``deeplab_thin``.
        unet: sizes of ``unet``.
        resolution: side in pixels at which images are fed and the loss is taken.
        batch: images per step, over all workers.
        epochs: passes over the shards; 2 in GanOrCon, 20 in DatasetGAN.
        steps: optimiser steps, instead of ``epochs``; give one of the two and null for the other.
        lr: learning rate.
        beta1: of Adam.
        weight_decay: L2, added to the gradient; 0.001 in ReGAN, else 0.
        loss: cross-entropy with the ``hard`` masks or with the ``soft`` labels.
        clip_value: each element of the gradient is clipped to this magnitude; 0.1 in ReGAN.
        plateau_patience: evaluations without improvement before the learning rate is divided by
            10; 20 in ReGAN. Left out, it is constant. See :meth:`Student.validated`.
        plateau_floor: the learning rate is not lowered below this; as in ReGAN.
        augment: joint augmentation of images and labels; none in the papers but ReGAN.
        precision: ``bf16`` runs the network under autocast.
        seed: seed of weights, dropout and augmentation.
    """

    network: Network = "deeplab_resnet101"
    thin: ThinConfig = ThinConfig()
    unet: UnetConfig = UnetConfig()
    resolution: int = Field(default=512, ge=1)
    batch: int = Field(default=8, ge=1)
    epochs: int | None = Field(default=2, ge=1)
    steps: int | None = Field(default=None, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    loss: Literal["hard", "soft"] = "hard"
    clip_value: float | None = Field(default=None, gt=0)
    plateau_patience: int | None = Field(default=None, ge=0)
    plateau_floor: float = Field(default=1e-6, ge=0)
    augment: JointConfig | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    @model_validator(mode="after")
    def _one_length(self) -> StudentConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError(
                f"epochs = {self.epochs}, steps = {self.steps}: one of the two is the length of "
                "the training; set the other to null"
            )
        return self

    @model_validator(mode="after")
    def _large_enough(self) -> StudentConfig:
        least = {"deeplab_thin": STAGE_STRIDE, "unet": self.unet.minimum_px}.get(self.network, 1)
        if self.resolution < least:
            raise ConfigError(
                f"resolution = {self.resolution}: {self.network} of these sizes needs {least} px "
                "or more"
            )
        if self.batch < 2 and self.network != "unet":
            raise ConfigError(
                f"batch = {self.batch}: {self.network} trains on two or more images per worker, "
                "its pooled branch normalises over them"
            )
        return self


def total_steps(config: StudentConfig, *, rows: int) -> int:
    """Return the optimiser steps of a training on ``rows`` images; incomplete batches do not count.

    Raises:
        ConfigError: there are fewer images than a batch has.
    """
    if rows < config.batch:
        raise ConfigError(f"batch = {config.batch}: the shards hold {rows} images; lower it")
    return config.steps or (config.epochs or 0) * (rows // config.batch)


def build_student(config: StudentConfig, num_classes: int) -> DeepLab | UNet:
    """Return the network with the weights that belong to the seed."""
    with rng.seeded(config.seed, "student"):
        if config.network == "unet":
            return UNet(config.unet, num_classes)
        if config.network == "deeplab_thin":
            return build_deeplab("thin", num_classes, thin=config.thin)
        backbone: Literal["resnet101", "resnet50"] = (
            "resnet101" if config.network == "deeplab_resnet101" else "resnet50"
        )
        return build_deeplab(backbone, num_classes)


class Student:
    """Learner of a student.

    Augmentation and dropout of an image depend on its place in the global batch and on the step,
    not on the number of workers; batch-norm statistics are those of a worker's images unless
    ``wrap`` synchronises them.

    Args:
        config: settings.
        num_classes: number of classes, background included.
        flip_pairs: pairs of classes, left and right, that a horizontal flip exchanges.
        device: where everything lives.
        wrap: receives the network, e.g. to make it data-parallel.
    """

    def __init__(
        self,
        config: StudentConfig,
        *,
        num_classes: int,
        flip_pairs: Sequence[tuple[int, int]] = (),
        device: torch.device | str,
        wrap: Callable[[nn.Module], nn.Module] = identity,
    ) -> None:
        self.config, self.flip_pairs, self.device = config, flip_pairs, torch.device(device)
        network = build_student(config, num_classes).to(self.device)
        # On CPUs with AVX-512 the backward pass of torch 2.15's 1x1 convolutions of stride 2 on few
        # channels corrupts memory in channels-last.
        cuda = self.device.type == "cuda"
        self.memory_format = torch.channels_last if cuda else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format).train()
        self.forward = wrap(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=config.lr,
            betas=(config.beta1, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, patience=config.plateau_patience or 0, min_lr=config.plateau_floor
        )
        self.steps_taken = 0

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Update once.

        Args:
            batch: this worker's ``image`` ``(batch / workers, 3, height, width)`` and ``mask``
                ``(batch / workers, height, width)``; for the soft loss ``soft`` ``(batch /
                workers, 2, kept, height, width)`` of
                :func:`raysweep.distill.soft.quantise_soft`. All uint8.

        Returns:
            ``loss``, pixel ``accuracy`` in [0, 1] against the mask, and ``lr``.

        Raises:
            ValueError: wrong number of images, or soft labels are missing.
        """
        config = self.config
        images, labels = self._prepare(batch)
        first = collective.rank() * len(images)
        seed_dropout(self.network, seed=config.seed, step=self.steps_taken, first=first)
        with self._autocast():
            logits = self.forward(images)
        loss = self._loss(logits.float(), labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if config.clip_value is not None:
            nn.utils.clip_grad_value_(self.network.parameters(), config.clip_value)
        self.optimizer.step()
        self.steps_taken += 1
        accuracy = (logits.detach().argmax(1) == labels.mask).float().mean()
        return {"loss": loss.detach(), "accuracy": accuracy, "lr": torch.tensor(self.lr)}

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def validated(self, loss: float) -> None:
        """Take note of a validation loss, the same on every worker; may lower the learning rate."""
        if self.config.plateau_patience is not None:
            self.plateau.step(loss)

    def _prepare(self, batch: Batch) -> tuple[torch.Tensor, Targets]:
        config, images, mask = self.config, batch["image"], batch["mask"]
        count, _, height, width = images.shape
        if count * collective.size() != config.batch or mask.shape != (count, height, width):
            raise ValueError(
                f"images {tuple(images.shape)} and masks {tuple(mask.shape)} on each of "
                f"{collective.size()} workers: expected batch = {config.batch} images in all, "
                "masks of their size"
            )
        if config.loss == "soft" and "soft" not in batch:
            raise ValueError("loss = 'soft': the batch has no soft labels; read them or use 'hard'")
        draw = targets.whole(config.batch, height=height, width=width)
        if config.augment is not None:
            draw = targets.draw_joint(
                config.batch,
                height=height,
                width=width,
                config=config.augment,
                generator=rng.generator(config.seed, "augment", self.steps_taken),
            )
        own = draw.part(slice(collective.rank() * count, (collective.rank() + 1) * count))
        soft = batch["soft"].to(self.device) if config.loss == "soft" else None
        labels = targets.apply_targets(
            mask.to(self.device), soft, own, px=config.resolution, flip_pairs=self.flip_pairs
        )
        x = targets.apply_images(images.to(self.device), own, px=config.resolution)
        return x.contiguous(memory_format=self.memory_format), labels

    def _loss(self, logits: torch.Tensor, labels: Targets) -> torch.Tensor:
        if labels.classes is None or labels.probabilities is None:
            return F.cross_entropy(logits, labels.mask)
        return targets.soft_cross_entropy(logits, labels.classes, labels.probabilities)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Label images with the network as it is now.

        Images are squeezed to the resolution of the training; scores are upsampled to the images'
        own size (bilinear, ``align_corners=False``) before the best class is taken.

        Args:
            images: ``(count, 3, height, width)`` uint8.

        Returns:
            ``(count, height, width)`` uint8 labels on the CPU.
        """
        height, width = images.shape[-2:]
        labels = [torch.empty(0, height, width, dtype=torch.uint8)]
        self.network.eval()
        for part in images.split(PREDICT_BATCH) if len(images) else ():
            draw = targets.whole(len(part), height=height, width=width)
            x = targets.apply_images(part.to(self.device), draw, px=self.config.resolution)
            with self._autocast():
                scores = self.network(x.contiguous(memory_format=self.memory_format)).float()
            scores = F.interpolate(
                scores, size=(height, width), mode="bilinear", align_corners=False
            )
            labels.append(scores.argmax(1).to("cpu", torch.uint8))
        self.network.train()
        return torch.cat(labels)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict(),
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])
        self.steps_taken = state["steps_taken"]
