"""Bilinear interpolation as a product with two small matrices, one per axis.

``resized = rows @ image @ columns.T``. A k x k convolution after the resize reads, at each of its
taps, the resized image moved by some pixels and zero beyond the border. Moving is moving the rows
of the matrices, so it costs nothing at run time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

STRIP_PX = 64
"""Output pixels of an axis made at a time. An output pixel needs only few of a level's pixels, so
short strips multiply by fewer zeros and need less memory; at 64 the products are still large enough
to run at full speed."""


def bilinear_matrix(size: int, px: int) -> torch.Tensor:
    """Return the weights that resize an axis, as ``F.interpolate(align_corners=False)`` does.

    Output pixel i has its centre at ``(i + 0.5) size / px``, measured in input pixels, and takes
    the two input pixels around it in proportion to their closeness; there is no antialiasing.

    Args:
        size: length of the axis.
        px: length of the resized axis.

    Returns:
        ``(px, size)`` float64 on the CPU; each row sums to 1.
    """
    output = torch.arange(px, dtype=torch.float64, device="cpu")
    centre = ((output + 0.5) * size / px - 0.5).clamp_(0, size - 1)
    pixel = torch.arange(size, dtype=torch.float64, device="cpu")
    return (1 - (centre[:, None] - pixel).abs()).clamp_(min=0)


def tap_matrices(size: int, px: int, *, kernel: int) -> torch.Tensor:
    """Return the resizing matrix as each tap of a zero-padded convolution sees it.

    Args:
        size: length of the axis.
        px: length of the resized axis, which the convolution keeps.
        kernel: odd number of taps.

    Returns:
        ``(kernel, px, size)`` float64 on the CPU: row i of tap t is row ``i + t - kernel // 2`` of
        :func:`bilinear_matrix`, or zero where that lies beyond the border.
    """
    margin = torch.zeros(kernel // 2, size, dtype=torch.float64, device="cpu")
    padded = torch.cat([margin, bilinear_matrix(size, px), margin])
    return torch.stack([padded[tap : tap + px] for tap in range(kernel)])


@dataclass(frozen=True)
class Strip:
    """Some consecutive output pixels of one axis, and what they are made of.

    Attributes:
        out: the output pixels.
        reads: per level, the input pixels that any tap reads.
        weights: per level ``(output pixels, kernel * input pixels)``; columns ordered by tap.
    """

    out: slice
    reads: tuple[slice, ...]
    weights: tuple[torch.Tensor, ...]

    @functools.cached_property
    def joined(self) -> torch.Tensor:
        """Weights of all levels side by side."""
        return torch.cat(self.weights, dim=1)


@functools.lru_cache(maxsize=64)
def strips(
    sizes: tuple[int, ...], px: int, *, kernel: int, dtype: torch.dtype, device: torch.device
) -> tuple[Strip, ...]:
    """Cut an axis of the output into strips of :data:`STRIP_PX`.

    Args:
        sizes: length of the axis in each level.
        px: length of the axis in the output.
        kernel: odd number of taps of the convolution that follows.
        dtype: of the weights.
        device: of the weights.
    """
    levels = [tap_matrices(size, px, kernel=kernel) for size in sizes]
    cut = []
    for start in range(0, px, STRIP_PX):
        out = slice(start, min(start + STRIP_PX, px))
        reads, weights = [], []
        for taps in levels:
            touched = taps[:, out].sum(dim=(0, 1)).nonzero()
            read = slice(int(touched[0]), int(touched[-1]) + 1)
            reads.append(read)
            weights.append(taps[:, out, read].transpose(0, 1).flatten(1).to(device, dtype))
        cut.append(Strip(out, tuple(reads), tuple(weights)))
    return tuple(cut)
