"""Random views for contrastive pretraining; that of images with labels is in ``joint``.

Drawing the random parameters is apart from applying them: workers that share a batch draw for the
whole batch and apply their own part, so an image's view does not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, field_validator

from raysweep.config import Config, ConfigError
from raysweep.data import colour, geometry

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of red, green, blue."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of red, green, blue."""

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
JitterStrength = tuple[float, float, float, float]


class CropAndJitterConfig(Config):
    """What both augmentations have: a resized crop, a colour jitter, a flip.

    Attributes:
        crop_scale: smallest and largest area of the crop as a fraction of the image's.
        ratio: smallest and largest width / height of the crop.
        jitter: brightness, contrast, saturation, hue.
        jitter_p: probability of the jitter.
        flip_p: probability of the horizontal flip.
    """

    crop_scale: Range
    ratio: Range
    jitter: JitterStrength
    jitter_p: Probability
    flip_p: Probability

    @field_validator("crop_scale", "ratio")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if not 0 < value[0] <= value[1]:
            raise ConfigError("expected 0 < smallest <= largest")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _inside(cls, value: Range) -> Range:
        if value[1] > 1:
            raise ConfigError("a crop cannot be larger than the image; at most 1.0")
        return value

    @field_validator("jitter")
    @classmethod
    def _strengths(cls, value: JitterStrength) -> JitterStrength:
        if min(value) < 0 or value[3] > 0.5:
            raise ConfigError("expected strengths >= 0, and hue (the fourth) <= 0.5")
        return value


class ViewConfig(CropAndJitterConfig):
    """Augmentation of MoCo v2 (2003.04297) and SimSiam, by default with their official values.

    Attributes:
        grayscale_p: probability of losing colour.
        blur_sigma: smallest and largest standard deviation of the blur in px **of the view**; the
            papers' 0.1 to 2.0 belong to 224 px.
        blur_p: probability of the blur.
    """

    crop_scale: Range = (0.2, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    jitter: JitterStrength = (0.4, 0.4, 0.4, 0.1)
    jitter_p: Probability = 0.8
    grayscale_p: Probability = 0.2
    blur_sigma: Range = (0.1, 2.0)
    blur_p: Probability = 0.5
    flip_p: Probability = 0.5

    @field_validator("blur_sigma")
    @classmethod
    def _blur_ordered(cls, value: Range) -> Range:
        if not 0 < value[0] <= value[1]:
            raise ConfigError("expected 0 < smallest <= largest, in px")
        return value


@dataclass(frozen=True)
class ViewDraw:
    """Random parameters of one view of each image of a batch; see :func:`draw_views`."""

    boxes: torch.Tensor
    flip: torch.Tensor
    jitter: colour.Jitter
    gray: torch.Tensor
    sigma: torch.Tensor

    def part(self, rows: slice) -> ViewDraw:
        """Return the parameters of some of the images."""
        return ViewDraw(
            boxes=self.boxes[rows],
            flip=self.flip[rows],
            jitter={name: strength[rows] for name, strength in self.jitter.items()},
            gray=self.gray[rows],
            sigma=self.sigma[rows],
        )


def draw_views(
    count: int, *, height: int, width: int, config: ViewConfig, generator: torch.Generator
) -> ViewDraw:
    """Draw the parameters of ``count`` views of images of ``height`` x ``width`` px."""
    boxes = geometry.draw_boxes(
        count,
        height=height,
        width=width,
        scale=config.crop_scale,
        ratio=config.ratio,
        generator=generator,
    )
    jitter = colour.draw_jitter(
        count, strength=config.jitter, p=config.jitter_p, generator=generator
    )
    gray, blurred, flip = (
        torch.rand(count, generator=generator) < p
        for p in (config.grayscale_p, config.blur_p, config.flip_p)
    )
    low, high = config.blur_sigma
    sigma = low + (high - low) * torch.rand(count, generator=generator)
    return ViewDraw(boxes=boxes, flip=flip, jitter=jitter, gray=gray, sigma=sigma * blurred)


def apply_views(
    images: torch.Tensor, draw: ViewDraw, *, px: int, config: ViewConfig
) -> torch.Tensor:
    """Crop, jitter, lose colour, blur, normalise.

    The flip is made together with the crop; it commutes with all that follows.

    Args:
        images: ``(batch, 3, height, width)`` uint8.
        draw: one set of parameters per image.
        px: side of the views.
        config: what ``draw`` was drawn from.

    Returns:
        ``(batch, 3, px, px)`` float, normalised by ImageNet's mean and std.
    """
    x = geometry.crop_resize(images, boxes=draw.boxes, flip=draw.flip, px=px) / 255
    x = colour.apply_jitter(x, draw.jitter)
    x = colour.to_grayscale(x, draw.gray)
    radius = colour.blur_radius(config.blur_sigma[1], px=px)
    return standardise(colour.gaussian_blur(x, sigma=draw.sigma, radius=radius))


def views(
    images: torch.Tensor, *, px: int, config: ViewConfig, generator: torch.Generator
) -> torch.Tensor:
    """Return one random view of each image.

    Args:
        images: ``(batch, 3, height, width)`` uint8.
        px: side of the views.
        config: the augmentation.
        generator: source of randomness, on the CPU.

    Returns:
        ``(batch, 3, px, px)`` float, normalised by ImageNet's mean and std.
    """
    count, _, height, width = images.shape
    draw = draw_views(count, height=height, width=width, config=config, generator=generator)
    return apply_views(images, draw, px=px, config=config)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Scale to [0, 1], subtract ImageNet's mean, divide by its standard deviation.

    Args:
        images: ``(batch, 3, height, width)`` uint8.

    Returns:
        The same shape, float32.
    """
    return standardise(images.float() / 255)


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Subtract ImageNet's mean from images in [0, 1], divide by its standard deviation.

    Args:
        images: ``(batch, 3, height, width)`` float.
    """
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, STD))
    return (images - mean) / std
