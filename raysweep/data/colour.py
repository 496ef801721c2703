"""Colour jitter, grayscale and blur of a whole batch, each image with its own strength.

Per image every function equals the one of the same name in ``torchvision.transforms.v2.functional``
on float images. "Not applied" is the neutral strength, so no image is ever handled apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Jitter = dict[str, torch.Tensor]
"""Strength ``(batch,)`` per adjustment, in the order of application."""

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green, blue in torchvision's grayscale (ITU-R 601-2)."""

BLUR_REACH = 3.0
"""Half width of the blur kernel in standard deviations of the strongest blur."""


def draw_jitter(
    count: int,
    *,
    strength: tuple[float, float, float, float],
    p: float,
    generator: torch.Generator,
) -> Jitter:
    """Draw as torchvision's ColorJitter inside a RandomApply.

    Deviation: the random order of the adjustments is drawn once per batch, not per image.

    Args:
        count: number of images.
        strength: brightness, contrast, saturation, hue; the first three draw factors from
            ``[max(0, 1 - s), 1 + s]``, hue draws turns of the colour circle from ``[-s, s]``.
        p: probability that an image is jittered at all.
        generator: source of randomness.

    Returns:
        Strengths ``(count,)`` of those adjustments whose setting is not zero.
    """
    applied = torch.rand(count, generator=generator) < p
    uniform = torch.rand((len(ADJUSTMENTS), count), generator=generator)
    names = list(ADJUSTMENTS)
    jitter: Jitter = {}
    for index in torch.randperm(len(names), generator=generator).tolist():
        name, most = names[index], strength[index]
        if most == 0:
            continue
        neutral = 0.0 if name == "hue" else 1.0
        low = -most if name == "hue" else max(0.0, 1 - most)
        value = low + (neutral + most - low) * uniform[index]
        jitter[name] = torch.where(applied, value, torch.tensor(neutral))
    return jitter


def apply_jitter(images: torch.Tensor, jitter: Jitter) -> torch.Tensor:
    """Apply the adjustments in their order.

    Args:
        images: ``(batch, 3, height, width)`` float in [0, 1].
        jitter: from :func:`draw_jitter`.

    Returns:
        ``(batch, 3, height, width)`` float in [0, 1].
    """
    for name, strength in jitter.items():
        images = ADJUSTMENTS[name](images, strength.to(images.device))
    return images


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply by ``factor`` ``(batch,)`` and clamp to [0, 1]."""
    return (images * _column(factor)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the mean gray of the image; ``factor`` ``(batch,)`` is the image's share."""
    return _blend(images, _luma(images).mean((2, 3), keepdim=True), factor)


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the gray image; ``factor`` ``(batch,)`` is the image's share."""
    return _blend(images, _luma(images), factor)


def adjust_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn the hue of HSV by ``turns`` ``(batch,)``, 1 being the whole circle.

    HSV back to RGB uses ``v - c * max(0, min(k, 4 - k, 1))`` with ``k = (n + 6 hue) mod 6`` and
    n = 5, 3, 1 for red, green, blue: the piecewise definition in one expression.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant += 6 * turns[:, None, None]
    out = torch.empty_like(images)
    for channel, n in enumerate((5, 3, 1)):
        k = (sextant + n).remainder_(6)
        share = torch.minimum(k, 4 - k).clamp_(0, 1)
        torch.addcmul(value, chroma, share, value=-1, out=out[:, channel])
    return out


def to_grayscale(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Replace the images where ``chosen`` ``(batch,)`` bool is true by their gray version."""
    return torch.where(_column(chosen.to(images.device)), _luma(images), images)


def gaussian_blur(images: torch.Tensor, *, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur with a kernel of ``2 * radius + 1`` taps and mirrored borders.

    Blurring along an axis is a product with a ``(size, size)`` matrix, one per image.

    Args:
        images: ``(batch, channel, height, width)`` float.
        sigma: ``(batch,)`` standard deviations in px; 0 leaves an image as it is.
        radius: taps on each side; less than height and width.

    Returns:
        The images' shape, float.
    """
    sigma = sigma.to(images.device)
    height, width = images.shape[-2:]
    rows = _blur_matrix(sigma, size=height, radius=radius)
    columns = rows if width == height else _blur_matrix(sigma, size=width, radius=radius)
    return rows[:, None] @ (images @ columns[:, None].mT)


def blur_radius(sigma: float, *, px: int) -> int:
    """Return the taps on each side for the strongest blur, at most what mirroring allows."""
    return min(math.ceil(BLUR_REACH * sigma), px - 1)


def _blur_matrix(sigma: torch.Tensor, *, size: int, radius: int) -> torch.Tensor:
    # (batch, size, size). Tap t of output pixel i reads pixel i + t, mirrored at both borders.
    taps = torch.arange(-radius, radius + 1, device=sigma.device)
    variance = 2 * sigma.clamp(min=1e-3)[:, None] ** 2  # at 1e-3 px all other taps are exactly 0
    kernel = torch.softmax(-(taps**2) / variance, dim=1)
    source = (torch.arange(size, device=sigma.device)[:, None] + taps).abs_()
    source = torch.where(source >= size, 2 * (size - 1) - source, source)
    scatter = torch.nn.functional.one_hot(source, size).to(kernel.dtype)  # i t j
    return torch.einsum("nt,itj->nij", kernel, scatter)


def _luma(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.chunk(3, dim=1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _blend(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    share = _column(factor)
    return (images * share).add_(other * (1 - share)).clamp_(0, 1)


def _column(per_image: torch.Tensor) -> torch.Tensor:
    return per_image[:, None, None, None]


ADJUSTMENTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
