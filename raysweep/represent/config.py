"""Settings of a representation: how it is trained, or which baseline stands in for it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raysweep.config import Config, ConfigError, to_dict
from raysweep.data.augment import ViewConfig
from raysweep.nets.gans import NetworkConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.represent.gan_config import GanConfig

Method = Literal[
    "moco", "simsiam", "stylegan2", "stylegan1", "generator", "random", "rgb", "weights"
]


class MocoConfig(Config):
    """What MoCo v2 alone reads; the defaults are those of the official code.

    Attributes:
        dim: length of queries and keys.
        hidden: width of the head's hidden layer.
        head_batch_norm: batch norm in the head; not in the paper.
        queue: number of keys kept; a multiple of the batch.
        momentum: of the key encoder.
        temperature: of the softmax.
    """

    dim: int = Field(default=128, ge=1)
    hidden: int = Field(default=2048, ge=1)
    head_batch_norm: bool = False
    queue: int = Field(default=65536, ge=1)
    momentum: float = Field(default=0.999, ge=0, le=1)
    temperature: float = Field(default=0.2, gt=0)


class SimsiamConfig(Config):
    """What SimSiam alone reads; the defaults are those of the official code.

    Attributes:
        dim: length of the projections.
        predictor_hidden: width of the predictor's bottleneck.
        constant_predictor_lr: keep the predictor at the peak learning rate.
    """

    dim: int = Field(default=2048, ge=1)
    predictor_hidden: int = Field(default=512, ge=1)
    constant_predictor_lr: bool = False


class RepresentConfig(Config):
    """A representation: learnt, a baseline, or imported.

    Attributes:
        method: ``moco`` or ``simsiam``; ``stylegan2`` or ``stylegan1``, which read only ``gan`` and
            ``seed``; ``generator`` for one that ``jobs/import_weights.py`` has imported;
            ``random`` for the trunk with random weights and calibrated
            batch norm, ``rgb`` for the raw colour of the pixel (every table carries both);
            ``weights`` for a local checkpoint file.
        trunk: the network that is pretrained.
        optimizer: ``sgd`` with momentum (the papers) or ``adamw`` (small trunks, short runs).
        lr: peak learning rate; SimSiam takes it as that **of a batch of 256** and uses
            ``lr * batch / 256``, as its official code does.
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
        moco: settings of MoCo v2.
        simsiam: settings of SimSiam.
        gan: settings of StyleGAN2.
        weights: path of the checkpoint for method ``weights``, of the directory for ``generator``.
    """

    method: Method = "moco"
    trunk: TrunkConfig = TrunkConfig()
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.03, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    sgd_momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=128, ge=2)
    resolution: int = Field(default=32, ge=1)
    views: ViewConfig = ViewConfig()
    bn_groups: int = Field(default=1, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    moco: MocoConfig = MocoConfig()
    simsiam: SimsiamConfig = SimsiamConfig()
    gan: GanConfig = GanConfig()
    weights: str | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> RepresentConfig:
        if self.method in ("weights", "generator") and self.weights is None:
            what = "checkpoint file" if self.method == "weights" else "directory with a generator"
            raise ConfigError(f"weights = None: method {self.method!r} needs the path of a {what}")
        if self.trains_generator:
            self._check_gan()
        if not self.contrastive:
            return self
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
        if self.method == "moco" and self.moco.queue % self.batch:
            nearest = max(1, round(self.moco.queue / self.batch)) * self.batch
            raise ConfigError(
                f"moco.queue = {self.moco.queue}: must be a multiple of batch = {self.batch}, "
                f"e.g. {nearest}"
            )
        return self

    def _check_gan(self) -> None:
        gan, where = self.gan, "stylegan1" if self.method == "stylegan1" else "network"
        if gan.batch % self.network.mbstd_group:
            raise ConfigError(
                f"gan.batch = {gan.batch}: must be a multiple of gan.{where}.mbstd_group = "
                f"{self.network.mbstd_group}"
            )
        if self.method == "stylegan1" and gan.path_weight:
            raise ConfigError(
                f"gan.path_weight = {gan.path_weight}: StyleGAN has no path length; set it to 0"
            )

    @property
    def contrastive(self) -> bool:
        """Whether the method trains a trunk on pairs of views."""
        return self.method in ("moco", "simsiam")

    @property
    def learnt(self) -> bool:
        """Whether the method is a training, one that takes long and leaves a curve."""
        return self.contrastive or self.trains_generator

    @property
    def trains_generator(self) -> bool:
        """Whether the method trains a generator."""
        return self.method in ("stylegan1", "stylegan2")

    @property
    def generative(self) -> bool:
        """Whether the features are those of a generator, which takes codes and not images."""
        return self.trains_generator or self.method == "generator"

    @property
    def network(self) -> NetworkConfig:
        """Sizes of the generator that is trained."""
        return self.gan.stylegan1 if self.method == "stylegan1" else self.gan.network

    @property
    def images_px(self) -> int:
        """Side of the images or views that the training sees."""
        return self.network.resolution if self.trains_generator else self.resolution

    @property
    def steps_in_all(self) -> int:
        """Steps of the training."""
        return self.gan.steps if self.trains_generator else self.steps

    @property
    def images_per_step(self) -> int:
        """Images per step of the training, over all workers."""
        return self.gan.batch if self.trains_generator else self.batch

    def relevant(self) -> dict[str, Any]:
        """Return only the settings that the method reads: what a stage's key is made of."""
        data = to_dict(self)
        if self.contrastive:
            unread = {"weights", "gan", "simsiam" if self.method == "moco" else "moco"}
            return {key: value for key, value in data.items() if key not in unread}
        if self.trains_generator:
            other = "stylegan1" if self.method == "stylegan2" else "network"
            gan = {key: value for key, value in data["gan"].items() if key != other}
            return {"method": self.method, "gan": gan, "seed": self.seed}
        read = {
            "generator": ("method", "weights"),
            "random": ("method", "trunk", "seed"),
            "rgb": ("method",),
            "weights": ("method", "trunk", "weights"),
        }[self.method]
        return {key: data[key] for key in read}
