"""Bilinear interpolation as a product with two small matrices, one per axis.

``resized = rows @ image @ columns.T``. A k x k convolution after the resize reads, at each of its
taps, the resized image moved by some pixels and zero beyond the border. Moving is moving the rows
of the matrices, so it costs nothing at run time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

BAND_PX = 64
"""Output rows made at a time. Fewer rows touch fewer low-resolution rows and need less memory; at
64 the matrix products are still large enough to run at full speed."""


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
class Piece:
    """What one vertical tap reads of one level for a band.

    Attributes:
        level: index of the level.
        tap: index of the tap.
        reads: the rows of the level.
        place: where they lie among all rows that the band reads.
    """

    level: int
    tap: int
    reads: slice
    place: slice


@dataclass(frozen=True)
class Band:
    """Some consecutive output rows, and what they are made of.

    Attributes:
        rows: the output rows.
        pieces: the input rows, by level and tap.
        weights: ``(output rows, input rows of all pieces)``.
    """

    rows: slice
    pieces: tuple[Piece, ...]
    weights: torch.Tensor


@functools.lru_cache(maxsize=64)
def bands(
    heights: tuple[int, ...], px: int, *, kernel: int, dtype: torch.dtype, device: torch.device
) -> tuple[Band, ...]:
    """Cut the output into bands of :data:`BAND_PX` rows, top to bottom.

    Args:
        heights: height of each level.
        px: height of the output.
        kernel: odd number of taps.
        dtype: of the weights.
        device: of the weights.
    """
    matrices = [tap_matrices(height, px, kernel=kernel) for height in heights]
    cut = []
    for top in range(0, px, BAND_PX):
        rows = slice(top, min(top + BAND_PX, px))
        pieces: list[Piece] = []
        weights: list[torch.Tensor] = []
        start = 0
        for level, taps in enumerate(matrices):
            touched = taps[:, rows].sum(dim=(0, 1)).nonzero()
            reads = slice(int(touched[0]), int(touched[-1]) + 1)
            for tap, matrix in enumerate(taps):
                stop = start + reads.stop - reads.start
                pieces.append(Piece(level, tap, reads, slice(start, stop)))
                weights.append(matrix[rows, reads])
                start = stop
        cut.append(Band(rows, tuple(pieces), torch.cat(weights, dim=1).to(device, dtype)))
    return tuple(cut)


@functools.lru_cache(maxsize=64)
def columns(
    width: int, px: int, *, kernel: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return the resizing matrix of the horizontal axis with its taps side by side.

    Args:
        width: width of a level.
        px: width of the output.
        kernel: odd number of taps.
        dtype: of the weights.
        device: of the weights.

    Returns:
        ``(px, width * kernel)``; columns are ordered by input column, tap.
    """
    matrices = tap_matrices(width, px, kernel=kernel)
    return matrices.permute(1, 2, 0).flatten(1).to(device, dtype)
