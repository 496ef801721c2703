"""Resampling by two with the low-pass filter [1, 3, 3, 1] of StyleGAN2 (1912.04958 section 4.2).

Sizes are exactly doubled or halved, and phases are those of the official code: upsampling is
bilinear with zeros around the image, downsampling averages centred on pairs of pixels. Depthwise
convolutions do the work, so that every function can be differentiated twice.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)


def fir_kernel() -> torch.Tensor:
    """Return the symmetric low-pass kernel ``(4, 4)`` float32 whose entries sum to 1."""
    taps = torch.tensor(TAPS)
    return torch.outer(taps, taps) / taps.sum() ** 2


def filter2d(
    x: torch.Tensor, kernel: torch.Tensor, *, padding: int, stride: int = 1, gain: float = 1.0
) -> torch.Tensor:
    """Filter every channel on its own; padding 1 and stride 2 halve height and width.

    Args:
        x: ``(batch, channels, height, width)``.
        kernel: ``(4, 4)``, symmetric.
        padding: zeros added on each of the four sides.
        stride: pixels from one output to the next.
        gain: factor on the result.

    Returns:
        ``(batch, channels, (height + 2 padding - 4) // stride + 1, ...)`` of the dtype of ``x``.
    """
    depthwise = _depthwise(kernel * gain, like=x)
    return F.conv2d(x, depthwise, stride=stride, padding=padding, groups=x.shape[1])


def upsample2d(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Double height and width: zeros inserted, filtered, times four to keep the brightness.

    Args:
        x: ``(batch, channels, height, width)``.
        kernel: ``(4, 4)``, symmetric.
    """
    depthwise = _depthwise(kernel * 4.0, like=x)
    return F.conv_transpose2d(x, depthwise, stride=2, padding=1, groups=x.shape[1])


def _depthwise(kernel: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    return kernel.to(like.dtype).expand(like.shape[1], 1, *kernel.shape)
