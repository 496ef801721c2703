"""Settings of adaptive discriminator augmentation."""

from __future__ import annotations

from pydantic import Field, model_validator

from raysweep.config import Config, ConfigError


class AdaConfig(Config):
    """Adaptive discriminator augmentation; the defaults are those of the paper.

    Attributes:
        enabled: whether images are augmented at all.
        target: the mean sign of the discriminator's answers to real images that p is steered to.
        interval: discriminator steps between two updates of p.
        speed_kimg: thousands of images in which p can go from 0 to 1; the official code takes 100
            when it continues from a trained model.
        initial_p: probability of each transform at the start.
        maximum_p: p never rises above it; none has no bound, and above 1 every transform is
            always made.
        blit: flips, quarter turns and translations by whole pixels.
        geometric: scales, rotations and translations by fractions of a pixel.
        colour: brightness, contrast, luma flip, hue, saturation.
    """

    enabled: bool = True
    target: float = Field(default=0.6, gt=0, lt=1)
    interval: int = Field(default=4, ge=1)
    speed_kimg: float = Field(default=500.0, gt=0, allow_inf_nan=False)
    initial_p: float = Field(default=0.0, ge=0, le=1)
    maximum_p: float | None = Field(default=None, ge=0, le=1)
    blit: bool = True
    geometric: bool = True
    colour: bool = True

    @model_validator(mode="after")
    def _fields_agree(self) -> AdaConfig:
        if self.maximum_p is not None and self.initial_p > self.maximum_p:
            raise ConfigError(
                f"initial_p = {self.initial_p}: must be at most maximum_p = {self.maximum_p}; "
                "lower it or raise maximum_p"
            )
        if self.enabled and not (self.blit or self.geometric or self.colour):
            raise ConfigError(
                "enabled = True: at least one of blit, geometric, colour must be true; switch one "
                "on or set enabled to false"
            )
        return self
