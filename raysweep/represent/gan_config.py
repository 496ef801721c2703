"""Settings of StyleGAN training."""

from __future__ import annotations

from pydantic import Field, model_validator

from raysweep.config import Config, ConfigError
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.represent.ada_config import AdaConfig


class GanConfig(Config):
    """How a StyleGAN2 is trained; the defaults are the official configuration ``stylegan2``.

    Attributes:
        network: generator and discriminator of ``stylegan2``; its ``resolution`` is that of the
            images.
        stylegan1: the same of ``stylegan1``, which has no path length: ``path_weight`` must be 0.
        kimg: length of the training in thousands of real images shown; 0 leaves random weights.
        batch: images per step over all workers.
        lr: learning rate of both networks.
        r1_gamma: weight of the R1 penalty; 0 switches it off.
        r1_interval: discriminator steps between two R1 steps (lazy regularisation).
        path_weight: weight of the path length penalty; 0 switches it off.
        path_interval: generator steps between two path length steps.
        path_shrink: the path length batch is smaller than ``batch`` by this factor.
        path_decay: of the moving average of path lengths.
        mixing: probability that an image has two styles.
        ema_kimg: half-life of the generator's moving average, in thousands of images.
        ema_rampup: the half-life is at most this fraction of the images seen so far; none has no
            such bound.
        mirror: show mirrored images as well.
        ada: adaptive discriminator augmentation.
        tick_kimg: thousands of images between two sample grids and distances.
        measured: generated images per distance.
        inception: file with the Inception weights that FID is defined by; without it a distance in
            a fixed trunk with random weights is recorded, under its own name.
        snapshots: generators kept on the way, evenly spaced, the last at the end.
    """

    network: StyleGan2Config = StyleGan2Config()
    stylegan1: StyleGan1Config = StyleGan1Config()
    kimg: float = Field(default=25_000.0, ge=0, allow_inf_nan=False)
    batch: int = Field(default=32, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    r1_gamma: float = Field(default=10.0, ge=0)
    r1_interval: int = Field(default=16, ge=1)
    path_weight: float = Field(default=2.0, ge=0)
    path_interval: int = Field(default=4, ge=1)
    path_shrink: int = Field(default=2, ge=1)
    path_decay: float = Field(default=0.01, gt=0, le=1)
    mixing: float = Field(default=0.9, ge=0, le=1)
    ema_kimg: float = Field(default=10.0, gt=0)
    ema_rampup: float | None = Field(default=None, gt=0)
    mirror: bool = False
    ada: AdaConfig = AdaConfig(enabled=False)
    tick_kimg: float = Field(default=200.0, gt=0)
    measured: int = Field(default=10_000, ge=2)
    inception: str | None = None
    snapshots: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _fields_agree(self) -> GanConfig:
        if self.batch % self.path_shrink:
            raise ConfigError(f"path_shrink = {self.path_shrink}: must divide batch = {self.batch}")
        return self

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return round(self.kimg * 1000 / self.batch)

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """Steps after which a generator is kept, ascending; the last is that of the end."""
        count = min(self.snapshots, max(self.steps, 1))
        return tuple(self.steps * (index + 1) // count for index in range(count))
