"""Settings of the search for an image's latent code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raysweep.config import Config, ConfigError, to_dict


class ProjectionConfig(Config):
    """How an image is projected.

    Attributes:
        space: ``w`` finds one row for all layers, ``w+`` one row per layer.
        steps: optimiser steps. GanOrCon reports up to 20000, best 10000.
        lr: peak learning rate of Adam.
        ramp_up: the learning rate rises linearly over this part of the steps.
        ramp_down: and falls as half a cosine over this last part.
        optimise_noise: whether the noise maps are found too, or stay as drawn.
        regulariser: weight of :func:`noise_regulariser`; only where noise is found.
        w_noise: the latent is disturbed by at first this part of its spread.
        w_noise_ramp: the disturbance ends after this part of the steps.
        perceptual: weight of the distance.
        distance: how far two images are apart: ``pixels`` a pyramid of pixel differences,
            ``trunk`` in the features of a trunk of this project, ``lpips`` as in the papers.
        weights: local file, read by ``trunk`` and ``lpips``. For ``trunk`` the trunk.safetensors of
            a pretrain stage; for ``lpips`` one file with the convolutions of VGG16 and the LPIPS
            linear weights, named as in torchvision (``features.0.weight``) and as published
            (``lin0.model.1.weight``), or the state dict of the package lpips (``net="vgg"``).
        pixel: weight of the mean squared difference of the pixels.
        mean_samples: latents drawn for the mean, where the search starts, and the spread.
        seed: seed of these, of the first noise maps and of the disturbance.
    """

    space: Literal["w", "w+"] = "w"
    steps: int = Field(default=1000, ge=1)
    lr: float = Field(default=0.1, gt=0)
    ramp_up: float = Field(default=0.05, ge=0, le=1)
    ramp_down: float = Field(default=0.25, ge=0, le=1)
    optimise_noise: bool = True
    regulariser: float = Field(default=1e5, ge=0)
    w_noise: float = Field(default=0.05, ge=0)
    w_noise_ramp: float = Field(default=0.75, ge=0, le=1)
    perceptual: float = Field(default=1.0, ge=0)
    distance: Literal["pixels", "trunk", "lpips"] = "pixels"
    weights: str | None = None
    pixel: float = Field(default=0.0, ge=0)
    mean_samples: int = Field(default=10_000, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _networks_have_weights(self) -> ProjectionConfig:
        if self.distance == "pixels" and self.weights is not None:
            raise ConfigError(
                f"weights = {self.weights!r}: distance 'pixels' has none; leave it out, or choose "
                "distance 'trunk' or 'lpips'"
            )
        if self.distance != "pixels" and not self.weights:
            what = "trunk.safetensors of a pretrain stage"
            if self.distance == "lpips":
                what = "file with the tensors of VGG16 and LPIPS; nothing is downloaded"
            raise ConfigError(
                f"weights = {self.weights!r}: distance {self.distance!r} needs a local {what}"
            )
        return self

    def relevant(self) -> dict[str, Any]:
        """Return the settings that a stage's key is made of; ``weights`` is still a path."""
        data = to_dict(self)
        if self.distance == "pixels":
            del data["distance"], data["weights"]
        return data
