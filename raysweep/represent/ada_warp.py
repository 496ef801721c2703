"""Affine warp of images that are twice as fine as the pixels, with a wavelet low-pass filter.

Appendix B of Karras et al. 2020 (2006.06676): reflect at the borders, upsample twice with the sym6
filter, interpolate bilinearly at the moved positions, downsample with the same filter. The filter
is orthonormal, so that without movement downsampling undoes upsampling exactly.

Reflection makes an image of ``size`` pixels a signal with period ``2 * (size - 1)``. One period is
upsampled and positions are taken modulo the period: an image is padded without end, and how far
depends on no other image of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional as F

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Decomposition low-pass filter of the symlet with 6 vanishing moments (Daubechies 1992)."""

CENTRE = sum(index * tap for index, tap in enumerate(SYM6)) / sum(SYM6)
"""Centre of gravity of the filter; taking it for the origin moves no linear ramp."""


def affine(images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Warp each image by its own affine map; linear in the images.

    Args:
        images: ``(batch, channel, height, width)`` float32 or float64, at least 2 x 2 px.
        inverse: ``(batch, 3, 3)`` of the images' dtype, on their device: from positions in the
            result to positions in the images, ``(x, y, 1)`` in px from the centre.

    Returns:
        The images' shape.
    """
    height, width = images.shape[2:]
    up_y, down_y = _resamplers(height, images.dtype, images.device)
    up_x, down_x = _resamplers(width, images.dtype, images.device)
    grid = _positions(inverse, height=height, width=width)
    fine: torch.Tensor = _Sample.apply(_along_both(images, up_x, up_y), grid)
    return _along_both(fine, down_y, down_x)


def _along_both(
    planes: torch.Tensor, last: torch.Tensor, second_last: torch.Tensor
) -> torch.Tensor:
    # Both axes of the planes, exchanged: two plain products, each on contiguous rows.
    return (planes @ last.mT).mT @ second_last.mT


@lru_cache(maxsize=32)
def _resamplers(
    size: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    # One period upsampled, (4 (size - 1) + 1, size), its first sample repeated at the end; and
    # downsampling of what lies under the taps, (size, 2 size + 10), from sample 1 - taps on.
    taps, period = len(SYM6), 2 * (size - 1)
    with torch.inference_mode(False):
        up = torch.zeros(2 * period + 1, size, dtype=torch.float64)
        down = torch.zeros(size, 2 * size + taps - 2, dtype=torch.float64)
        fine = torch.arange(2 * period + 1)
        pixel = torch.arange(size)
        for index, tap in enumerate(SYM6):
            even = (fine + index) % 2 == 0
            source = ((fine[even] + index) // 2) % period
            source = torch.minimum(source, period - source)
            up[fine[even], source] += tap
            down[pixel, 2 * pixel - index + taps - 1] = tap
        return up.to(device, dtype), down.to(device, dtype)


def _positions(inverse: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    # (batch, fine columns, fine rows, 2): where each sample of the upsampled result lies in the
    # period of the upsampled image, in [-1, 1]. Sample n stands at pixel (n + CENTRE) / 2. Rows
    # and columns are exchanged, as in the planes.
    y, x = (
        (torch.arange(2 * size + len(SYM6) - 2).to(inverse) + 1 - len(SYM6) + CENTRE) / 2
        - (size - 1) / 2
        for size in (height, width)
    )
    grid_x, grid_y = torch.meshgrid(x, y, indexing="ij")
    here = torch.stack([grid_x, grid_y, torch.ones_like(grid_x)], dim=-1).flatten(0, 1)
    there = (here @ inverse[:, :2].mT).view(len(inverse), *grid_x.shape, 2)
    size = torch.tensor([width, height]).to(inverse)
    sample = 2 * (there + (size - 1) / 2) - CENTRE
    period = 4 * (size - 1)
    return (sample.remainder(period) * (2 / period) - 1).flip(-1)


class _Sample(torch.autograd.Function):
    """Bilinear interpolation, differentiable any number of times with respect to the planes.

    It is linear: the derivative of its transpose is itself. Not every version of torch can
    differentiate ``grid_sample`` twice.
    """

    @staticmethod
    def forward(ctx: Any, planes: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = planes.shape
        return F.grid_sample(planes, grid, padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradients[0], grid, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transpose of :class:`_Sample`."""

    @staticmethod
    def forward(
        ctx: Any, samples: torch.Tensor, grid: torch.Tensor, shape: Sequence[int]
    ) -> torch.Tensor:
        ctx.save_for_backward(grid)
        planes = samples.new_zeros(1).expand(shape)  # its values do not matter, only its shape
        bilinear, border, align_corners = 0, 1, True
        spread: torch.Tensor = torch.ops.aten.grid_sampler_2d_backward(
            samples, planes, grid, bilinear, border, align_corners, [True, False]
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradients[0], grid), None, None
