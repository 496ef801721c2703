"""Losses of StyleGAN2: non-saturating logistic loss, R1, path length.

Goodfellow et al. 2014, Mescheder et al. 2018 (1801.04406), Karras et al. 2020 (1912.04958).
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log sigmoid(D(G(z)))``, a scalar, for logits of any shape."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(fake_logits: torch.Tensor, real_logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log(1 - sigmoid(D(G(z)))) - log sigmoid(D(x))``, a scalar."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(real_logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return each image's squared gradient norm (1801.04406 eq. 9, without ``gamma / 2``).

    Args:
        real_logits: ``(batch, 1)``, computed from ``images``; an image's logit may depend on the
            others through the minibatch standard deviation, whose gradient counts as well.
        images: ``(batch, 3, height, width)`` that require a gradient.

    Returns:
        ``(batch,)``, differentiable with respect to the discriminator.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: torch.Tensor, ws: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the length of the Jacobian along a random direction (1912.04958 eq. 4).

    Args:
        images: ``(batch, 3, height, width)``, computed from ``ws``.
        ws: ``(batch, num_ws, w_dim)`` that require a gradient.
        noise: standard normal, of the images' shape; it is divided by the root of their pixels.

    Returns:
        ``(batch,)``: the root of the mean over rows of the squared gradient norm; differentiable
        with respect to the generator.
    """
    direction = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * direction).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
