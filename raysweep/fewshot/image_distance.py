"""How far two images are apart, in pixels or in the features of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps two batches of images ``(batch, 3, R, R)`` to one number per image, ``(batch,)``."""


def pixel_pyramid(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference, summed over a pyramid of halved images.

    Args:
        a: ``(batch, channels, height, width)``.
        b: the same shape.

    Returns:
        ``(batch,)``, of all sizes down to the last with two pixels or more on its shorter side.
    """
    difference = a - b  # averaging is linear: the difference of means is the mean difference
    total = difference.square().mean((1, 2, 3))
    while min(difference.shape[2:]) >= 4:
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.square().mean((1, 2, 3))
    return total


def feature_distance(
    features: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    *,
    max_px: int = 256,
    weights: Sequence[torch.Tensor] | None = None,
) -> Distance:
    """Return the distance of LPIPS (Zhang et al. 2018, 1801.03924).

    Channels of each map are scaled to unit length; squared differences are summed over channels,
    averaged over pixels, summed over maps.

    Args:
        features: maps images ``(batch, 3, R, R)`` to maps ``(batch, channel_l, height_l,
            width_l)``; keeps its gradients towards the images.
        max_px: larger images are averaged to this side before.
        weights: learnt weights ``(channel_l,)`` of the channels, per map; all 1 if left out.
    """

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        if max(images.shape[2:]) > max_px:
            images = F.interpolate(images, size=(max_px, max_px), mode="area")
        return [F.normalize(level, dim=1, eps=1e-10) for level in features(images)]

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        apart = [(x - y).square() for x, y in zip(maps(a), maps(b), strict=True)]
        if weights is not None:
            apart = [x * w[:, None, None] for x, w in zip(apart, weights, strict=True)]
        return torch.stack([x.sum(1).mean((1, 2)) for x in apart]).sum(0)

    return distance
