"""The gradient of a last, linear layer by hand: it is linear in the soft labels.

With logits ``z = U(W f + b)``, features ``f``, a resize ``U``, ``p = softmax(z)``, soft labels
``a`` and the cross-entropy averaged over ``N`` pixels,

    dL/dW = (1 / N) sum over pixels of U^T(p - a) f^T,

in which p and f do not depend on a. Its derivative by a, in a direction V of the weights, is the
change of the logits, ``-(1 / N) U(V f)``: no second backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from raysweep.nets.interpolation import bilinear_matrix


@contextmanager
def features_of(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Run a block and collect what a layer is given, detached, call by call."""
    found: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    try:
        yield found
    finally:
        handle.remove()


def head_gradient(residual: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a 1x1 convolution's weights.

    Args:
        residual: ``(batch, classes, height, width)``, ``softmax(logits) - labels``; the result is
            linear in it and differentiable by it.
        features: ``(batch, channels, h, w)``, the layer's input; logits were resized from ``h x w``
            to ``height x width`` bilinearly (``align_corners=False``).

    Returns:
        ``(classes, channels, 1, 1)``.
    """
    pixels = residual.numel() // residual.shape[1]
    small = _resize_adjoint(residual, features.shape[-2:])
    return torch.einsum("bchw,bdhw->cd", small, features)[..., None, None] / pixels


def head_tangent(
    direction: torch.Tensor, features: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Return by how much the logits change when the weights move in a direction.

    Args:
        direction: ``(classes, channels, 1, 1)``.
        features: ``(batch, channels, h, w)``, the layer's input.
        size: height and width of the logits.

    Returns:
        ``(batch, classes, *size)``.
    """
    change = F.conv2d(features, direction)
    if change.shape[-2:] == size:
        return change
    return F.interpolate(change, size=size, mode="bilinear", align_corners=False)


def _resize_adjoint(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Return the transposed bilinear resize, from the maps' size back to ``size``."""
    if maps.shape[-2:] == size:
        return maps
    rows, columns = (
        bilinear_matrix(small, px).to(maps) for small, px in zip(size, maps.shape[-2:], strict=True)
    )
    return rows.t() @ maps @ columns
