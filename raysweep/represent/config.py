# NOTE (lead -> helper C): the learners take THIS RepresentConfig (Moco(config: RepresentConfig), SimSiam(config: RepresentConfig)); do not define a second
# config with the same fields. You own this file from now on: adjust it as you see fit, keep the field names; delete this note.
"""Settings of a representation: how it is trained, or which baseline stands in for it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raysweep.config import Config, to_dict
from raysweep.data.augment import ViewConfig
from raysweep.nets.resnet import TrunkConfig, build_trunk

Method = Literal["moco", "simsiam", "random", "rgb", "weights"]


class MocoConfig(Config):
    """MoCo v2 (He et al. 2020; Chen et al. 2020). Defaults are those of the official code."""

    dim: int = Field(128, gt=0)
    hidden: int = Field(2048, gt=0)
    head_batch_norm: bool = False
    queue: int = Field(65536, gt=0)
    momentum: float = Field(0.999, ge=0, lt=1)
    temperature: float = Field(0.2, gt=0)


class SimSiamConfig(Config):
    """SimSiam (Chen and He 2021). Defaults are those of the official code."""

    dim: int = Field(2048, gt=0)
    predictor_hidden: int = Field(512, gt=0)
    constant_predictor_lr: bool = False


class RepresentConfig(Config):
    """A representation: learnt (``moco``, ``simsiam``), a baseline, or imported.

    ``random`` is the trunk with random weights and calibrated batch norm, ``rgb`` the raw colour
    of the pixel; every table carries both. ``weights`` reads a local checkpoint file.

    Attributes:
        resolution: side in pixels of the crops seen in pretraining.
        batch: images per step over all workers.
        lr: peak learning rate. MoCo takes it as it is; SimSiam scales it by ``batch / 256`` as the
            official code does.
        bn_groups: groups in which one worker forwards its share, each with its own batch-norm
            statistics; emulates the shuffled batch norm of several workers on one.
        weights: path of a checkpoint, for method ``weights``.
    """

    method: Method = "moco"
    trunk: TrunkConfig = TrunkConfig()
    resolution: int = Field(32, gt=0)
    steps: int = Field(1500, gt=0)
    batch: int = Field(128, gt=1)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    sgd_momentum: float = Field(0.9, ge=0, lt=1)
    warmup_steps: int = Field(20, ge=0)
    views: ViewConfig = ViewConfig()
    bn_groups: int = Field(1, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    moco: MocoConfig = MocoConfig()
    simsiam: SimSiamConfig = SimSiamConfig()
    weights: str | None = None

    @model_validator(mode="after")
    def _check(self) -> RepresentConfig:
        smallest = build_trunk(self.trunk).minimum_px
        if self.learnt and self.resolution < smallest:
            raise ValueError(
                f"resolution = {self.resolution}: the {self.trunk.name} trunk takes {smallest} "
                "pixels or more"
            )
        if self.method == "moco" and self.moco.queue % self.batch:
            raise ValueError(
                f"moco.queue = {self.moco.queue}: must be a multiple of batch = {self.batch}"
            )
        if self.batch % self.bn_groups:
            raise ValueError(f"bn_groups = {self.bn_groups}: must divide batch = {self.batch}")
        if self.method == "weights" and self.weights is None:
            raise ValueError(
                "weights = None: method 'weights' needs the path of a local checkpoint"
            )
        return self

    @property
    def learnt(self) -> bool:
        """Whether the method trains the trunk."""
        return self.method in ("moco", "simsiam")

    def relevant(self) -> dict[str, Any]:
        """Return only the settings that the method reads: what a stage's key is made of."""
        data = to_dict(self)
        if self.learnt:
            other = "simsiam" if self.method == "moco" else "moco"
            return {key: value for key, value in data.items() if key not in (other, "weights")}
        kept = {
            "random": ("method", "trunk", "seed"),
            "rgb": ("method",),
            "weights": ("method", "trunk", "weights"),
        }[self.method]
        return {key: data[key] for key in kept}
