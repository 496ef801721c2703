"""Settings of a student, its length of training, and its network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raysweep import rng
from raysweep.config import Config, ConfigError, to_dict
from raysweep.data.joint import JointConfig
from raysweep.nets.deeplab import DeepLab, ThinConfig, build_deeplab
from raysweep.nets.resnet import STAGE_STRIDE
from raysweep.nets.unet import UNet, UnetConfig

Network = Literal["deeplab_resnet101", "deeplab_resnet50", "deeplab_thin", "unet"]


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
        shuffle_buffer: rows that are mixed at a time, still encoded, over all workers; files are in
            another order every epoch besides.
        checkpoints: number of candidates kept, evenly spaced, the last at the end; the protocol
            chooses. GanOrCon's and DatasetGAN's code keep one per epoch.
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
    shuffle_buffer: int = Field(default=1024, ge=0)
    checkpoints: int = Field(default=2, ge=1)
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

    def relevant(self) -> dict[str, Any]:
        """Return only the settings that are read: what a stage's key is made of."""
        unread = {"thin", "unet"} - {{"deeplab_thin": "thin"}.get(self.network, self.network)}
        if self.plateau_patience is None:
            unread.add("plateau_floor")
        return {key: value for key, value in to_dict(self).items() if key not in unread}


def total_steps(config: StudentConfig, *, rows: int) -> int:
    """Return the optimiser steps of a training on ``rows`` images; incomplete batches do not count.

    Raises:
        ConfigError: there are fewer images than a batch has.
    """
    if rows < config.batch:
        raise ConfigError(f"batch = {config.batch}: the shards hold {rows} images; lower it")
    return config.steps or (config.epochs or 0) * (rows // config.batch)


def candidate_steps(config: StudentConfig, *, rows: int) -> tuple[int, ...]:
    """Return the steps after which a candidate checkpoint is kept, ascending."""
    steps = total_steps(config, rows=rows)
    count = min(config.checkpoints, steps)
    return tuple(steps * (index + 1) // count for index in range(count))


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
