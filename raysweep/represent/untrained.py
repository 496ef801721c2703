"""The baseline of every table: a trunk that was never trained."""

from __future__ import annotations

import torch
from torch import nn

from raysweep import rng
from raysweep.data import augment
from raysweep.nets.resnet import Trunk, TrunkConfig, build_trunk

CALIBRATION_BATCH = 64


def untrained_trunk(
    config: TrunkConfig,
    images: torch.Tensor,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> Trunk:
    """Return a random trunk whose batch norms know the images' statistics.

    Without the calibration its deeper maps would be out of scale and the baseline unfairly weak.

    Args:
        config: which trunk.
        images: ``(count, 3, height, width)`` uint8, unlabelled; 64 per forward, a smaller rest is
            left out. Statistics are averaged over the forwards with equal weight.
        seed: seed of the weights.
        device: where to calibrate; the trunk stays there.

    Returns:
        The trunk in eval mode.

    Raises:
        ValueError: fewer than two images, which have no batch statistics.
    """
    if len(images) < 2:
        raise ValueError(f"got {len(images)} images: at least 2 are needed to calibrate batch norm")
    with rng.seeded(seed, "trunk"):
        trunk = build_trunk(config).to(device)
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # torch's cumulative average
    batch = min(CALIBRATION_BATCH, len(images))
    whole = len(images) // batch * batch
    trunk.train()
    with torch.no_grad():
        for part in images[:whole].reshape(-1, batch, *images.shape[1:]):
            trunk(augment.normalise(part.to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return trunk.eval()
