"""Random strengths of the pipeline "bgc" of adaptive discriminator augmentation, as matrices.

Figure 15 of Karras et al. 2020 (2006.06676). A transform that is not made has its neutral
strength, whose matrix is exactly the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from raysweep.represent.ada_config import AdaConfig

Strengths = dict[str, torch.Tensor]
"""Strength ``(batch,)`` float64 per transform; see :func:`draw_strengths`."""

INTEGER_SHIFT = 0.125
"""Largest translation by whole pixels, as a fraction of the side."""
FRACTIONAL_SHIFT = 0.125
"""Standard deviation of the translation by fractions of a pixel, as a fraction of the side."""
SCALE_OCTAVES = 0.2
"""Standard deviation of log2 of the scale, isotropic and anisotropic."""
BRIGHTNESS = 0.2
"""Standard deviation of the brightness that is added, for images in [-1, 1]."""
CONTRAST_OCTAVES = 0.5
"""Standard deviation of log2 of the contrast."""
SATURATION_OCTAVES = 1.0
"""Standard deviation of log2 of the saturation."""


def draw_strengths(
    batch: int,
    p: float,
    *,
    height: int,
    width: int,
    config: AdaConfig,
    generator: torch.Generator,
) -> Strengths:
    """Draw the strength of each transform of each image, neutral with probability ``1 - p``.

    The two free rotations share one probability: neither is made with ``1 - p``.

    Args:
        batch: number of images.
        p: probability of each transform; above 1 the same as 1.
        height: height of the images in px.
        width: width of the images in px.
        config: which groups of transforms are made.
        generator: source of randomness, on the CPU.

    Returns:
        In the order of application, those of an axis as ``_x`` and ``_y``: ``flip`` 0 or 1,
        ``quarters`` turns of 90 degrees, ``whole`` px, ``scale``, ``pre`` radians, ``stretch``,
        ``post`` radians, ``shift`` px; ``brightness``, ``contrast``, ``luma_flip`` 0 or 1,
        ``hue`` radians, ``saturation``.

    Raises:
        ValueError: ``p`` is negative or not a number.
    """
    blit, geometric, colour = _probabilities(p, config)
    chance = torch.rand((13, batch), generator=generator, dtype=torch.float64)
    uniform = torch.rand((8, batch), generator=generator, dtype=torch.float64)
    normal = torch.randn((7, batch), generator=generator, dtype=torch.float64)
    return (
        _blit(chance[:3] < blit, uniform[:4], height=height, width=width)
        | _geometric(chance[3:8], geometric, uniform[4:6], normal[:4], height=height, width=width)
        | _colour(chance[8:] < colour, uniform[6:], normal[4:])
    )


def inverse_geometry(strengths: Strengths) -> torch.Tensor:
    """Return ``(batch, 3, 3)`` from ``(x, y, 1)`` of the result to that of the original.

    In px from the centre of the image, x to the right, y down; a rotation turns x to y.
    """
    s = strengths
    one = torch.ones_like(s["scale"])
    matrices = (
        _scale(1 - 2 * s["flip"], one),
        _rotation(-s["quarters"] * (math.pi / 2)),
        _translation(-s["whole_x"], -s["whole_y"]),
        _scale(1 / s["scale"], 1 / s["scale"]),
        _rotation(-s["pre"]),
        _scale(1 / s["stretch"], s["stretch"]),
        _rotation(-s["post"]),
        _translation(-s["shift_x"], -s["shift_y"]),
    )
    return _product(matrices)  # the inverse of the last one made comes last


def colour(strengths: Strengths) -> torch.Tensor:
    """Return ``(batch, 4, 4)`` from ``(red, green, blue, 1)`` of the original to the result's."""
    s = strengths
    eye = torch.eye(4, dtype=torch.float64)
    gray = torch.tensor([1, 1, 1, 0], dtype=torch.float64) / math.sqrt(3)
    along = torch.outer(gray, gray)
    across = torch.diag(torch.tensor([1, 1, 1, 0], dtype=torch.float64)) - along
    cross = torch.tensor(  # the cross product with gray
        [[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64
    ) / math.sqrt(3)
    brightness = eye.repeat(len(s["brightness"]), 1, 1)
    brightness[:, :3, 3] = s["brightness"][:, None]
    contrast = eye.repeat(len(s["contrast"]), 1, 1)
    contrast[:, :3, :3] *= _column(s["contrast"])
    luma_flip = eye - 2 * _column(s["luma_flip"]) * along
    hue = _column(s["hue"])
    hue = eye + (hue.cos() - 1) * across + hue.sin() * cross
    saturation = eye + (_column(s["saturation"]) - 1) * across
    return _product((saturation, hue, luma_flip, contrast, brightness))


def _probabilities(p: float, config: AdaConfig) -> list[float]:
    if not p >= 0:
        raise ValueError(f"p = {p}: expected a probability, at least 0")
    groups = (config.blit, config.geometric, config.colour)
    return [p if config.enabled and group else 0.0 for group in groups]


def _blit(made: torch.Tensor, uniform: torch.Tensor, *, height: int, width: int) -> Strengths:
    side = torch.tensor([[width], [height]])
    whole = ((2 * uniform[2:] - 1) * INTEGER_SHIFT * side).round() * made[2]
    return {
        "flip": (2 * uniform[0]).floor() * made[0],
        "quarters": (4 * uniform[1]).floor() * made[1],
        "whole_x": whole[0],
        "whole_y": whole[1],
    }


def _geometric(
    chance: torch.Tensor,
    p: float,
    uniform: torch.Tensor,
    normal: torch.Tensor,
    *,
    height: int,
    width: int,
) -> Strengths:
    made = chance < p
    turned = chance < 1 - math.sqrt(max(0.0, 1 - p))
    angle = math.pi * (2 * uniform - 1)
    return {
        "scale": (SCALE_OCTAVES * normal[0] * made[0]).exp2(),
        "pre": angle[0] * turned[1],
        "stretch": (SCALE_OCTAVES * normal[1] * made[2]).exp2(),
        "post": angle[1] * turned[3],
        "shift_x": FRACTIONAL_SHIFT * width * normal[2] * made[4],
        "shift_y": FRACTIONAL_SHIFT * height * normal[3] * made[4],
    }


def _colour(made: torch.Tensor, uniform: torch.Tensor, normal: torch.Tensor) -> Strengths:
    return {
        "brightness": BRIGHTNESS * normal[0] * made[0],
        "contrast": (CONTRAST_OCTAVES * normal[1] * made[1]).exp2(),
        "luma_flip": (2 * uniform[0]).floor() * made[2],
        "hue": math.pi * (2 * uniform[1] - 1) * made[3],
        "saturation": (SATURATION_OCTAVES * normal[2] * made[4]).exp2(),
    }


def _scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros_like(x)
    return _affine(x, zero, zero, zero, y, zero)


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _affine(cos, -sin, zero, sin, cos, zero)


def _translation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _affine(one, zero, x, zero, one, y)


def _affine(*entries: torch.Tensor) -> torch.Tensor:
    # (batch, 3, 3) from the first two rows, read along the rows
    zero, one = torch.zeros_like(entries[0]), torch.ones_like(entries[0])
    return torch.stack([*entries, zero, zero, one], dim=-1).view(-1, 3, 3)


def _product(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    first, *others = matrices
    for matrix in others:
        first = torch.bmm(first, matrix)
    return first


def _column(per_image: torch.Tensor) -> torch.Tensor:
    return per_image[:, None, None]
