"""The first convolution over a hypercolumn, without the hypercolumn.

A hypercolumn stacks the maps of all levels, each resized to the output (GanOrCon 4.2): with a
ResNet-50 3,840 channels at full resolution. Resizing mixes pixels and a 1x1 convolution mixes
channels, so the two commute: convolve each level at its own resolution, resize the few results,
sum. A 3x3 convolution is nine 1x1 ones whose results are moved by a pixel before the sum.
The outcome is the same number for number, up to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from raysweep.nets.interpolation import Band, bands, columns

Size = tuple[int, int]


def hypercolumn(levels: Sequence[torch.Tensor], size: Size) -> torch.Tensor:
    """Return the materialised hypercolumn: the definition that the fast path is held against.

    Args:
        levels: maps ``(batch, channel_l, height_l, width_l)``, shallow to deep.
        size: height and width of the output in px.

    Returns:
        ``(batch, sum of channel_l, height, width)``, deepest level first as in GanOrCon's released
        code; bilinear, ``align_corners=False``.
    """
    resized = [F.interpolate(level, size=size, mode="bilinear") for level in reversed(levels)]
    return torch.cat(resized, dim=1)


class HypercolumnConv2d(nn.Module):
    """A convolution over :func:`hypercolumn` that never builds it.

    Its parameters are those of ``nn.Conv2d(sum(channels), out_channels, kernel, padding=kernel //
    2)`` over the materialised hypercolumn: same shapes, same order of channels.

    Args:
        channels: channels of each level, shallow to deep.
        out_channels: number of output channels.
        kernel: 1 or 3; the output keeps its size by zero padding.
        bias: whether to add a bias.

    Raises:
        ValueError: ``kernel`` is even.
    """

    def __init__(
        self, channels: Sequence[int], out_channels: int, *, kernel: int, bias: bool
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel = {kernel}: must be odd, so that the output keeps its size")
        self.channels = tuple(channels)
        self.kernel = kernel
        plain = nn.Conv2d(sum(channels), out_channels, kernel, bias=bias)
        self.weight = plain.weight
        self.bias = plain.bias

    def forward(self, levels: Sequence[torch.Tensor], size: Size) -> torch.Tensor:
        """Convolve the hypercolumn of ``levels`` at ``size``.

        Args:
            levels: maps ``(batch, channels[l], height_l, width_l)``, shallow to deep.
            size: height and width of the output in px.

        Returns:
            ``(batch, out_channels, height, width)`` in channels-last memory.

        Raises:
            ValueError: number of levels or their channels differ from ``channels``.
        """
        found = tuple(level.shape[1] for level in levels)
        if found != self.channels:
            raise ValueError(f"levels have {found} channels: expected {self.channels}")
        weights = self.weight.split(self.channels[::-1], dim=1)[::-1]
        here = [level.shape[-2:] == size for level in levels]
        out: torch.Tensor | None = None
        for level, weight, is_here in zip(levels, weights, here, strict=True):
            if is_here:
                bias = self.bias if out is None else None
                term = F.conv2d(level, weight, bias, padding=self.kernel // 2)
                out = term if out is None else out + term
        if all(here):
            assert out is not None
            return out
        apart = [i for i in reversed(range(len(levels))) if not here[i]]
        weight = torch.cat([weights[i] for i in apart], dim=1) if any(here) else self.weight
        bias = self.bias if out is None else None
        summed = _ResizedSum.apply(weight, bias, size, *(levels[i] for i in apart))
        return summed if out is None else out.add_(summed)


class _Geometry:
    """Sizes and interpolation matrices that forward and backward share."""

    def __init__(
        self, weight: torch.Tensor, levels: Sequence[torch.Tensor], size: Size
    ) -> None:
        self.outputs, self.kernel = weight.shape[0], weight.shape[-1]
        matrix = {"kernel": self.kernel, "dtype": weight.dtype, "device": weight.device}
        heights = tuple(level.shape[2] for level in levels)
        self.bands = bands(heights, size[0], **matrix)
        self.columns = [columns(level.shape[3], size[1], **matrix) for level in levels]
        self.width = size[1]
        stops = list(itertools.accumulate(level.shape[1] for level in levels))
        self.channels = [slice(a, b) for a, b in zip([0, *stops], stops)]

    def new_wide(self, like: torch.Tensor) -> torch.Tensor:
        """Return room for the rows that a band reads, resized to the output's width."""
        rows = max(band.weights.shape[1] for band in self.bands)
        return like.new_empty(rows, self.width, self.outputs)


class _ResizedSum(torch.autograd.Function):
    """``conv2d(hypercolumn(levels), weight, bias)`` at the levels' own resolution.

    Per band of output rows: mix channels at low resolution, widen, stack the rows of all levels and
    taps, and combine them by one matrix product. Letters in comments: h w rows and columns of a
    level, y x of the output, j horizontal tap, c o input and output channel, r stacked row.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        size: Size,
        *levels: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, *levels)
        ctx.size, ctx.has_bias = size, bias is not None
        plan = _Geometry(weight, levels, size)
        maps = [_channels_last(level) for level in levels]
        mixing = weight.permute(2, 1, 3, 0).flatten(2).contiguous()  # tap, c, (j o)
        out = weight.new_empty(len(levels[0]), *size, plan.outputs)  # image y x o
        wide = plan.new_wide(weight)  # r x o
        for image in range(len(out)):
            for band in plan.bands:
                for piece in band.pieces:
                    low = maps[piece.level][image, piece.reads]  # h w c
                    mixed = low.flatten(0, 1) @ mixing[piece.tap, plan.channels[piece.level]]
                    mixed = mixed.view(len(low), -1, plan.outputs)  # h (w j) o
                    wider = plan.columns[piece.level].expand(len(low), -1, -1)
                    torch.bmm(wider, mixed, out=wide[piece.place])
                rows = band.weights.shape[1]
                strip = out[image, band.rows].flatten(1)
                torch.mm(band.weights, wide[:rows].flatten(1), out=strip)
        if bias is not None:
            out += bias
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, *levels = ctx.saved_tensors
        plan = _Geometry(weight, levels, ctx.size)
        maps = [_channels_last(level) for level in levels]
        grad = _channels_last(grad)  # image y x o
        mixing_grad = weight.new_zeros(plan.kernel, weight.shape[1], plan.kernel * plan.outputs)
        wide = plan.new_wide(weight)
        for image in range(len(grad)):
            for band in plan.bands:
                rows = band.weights.shape[1]
                back = band.weights.t().contiguous()
                torch.mm(back, grad[image, band.rows].flatten(1), out=wide[:rows].flatten(1))
                for piece in band.pieces:
                    low = maps[piece.level][image, piece.reads]
                    narrow = plan.columns[piece.level].t().expand(len(low), -1, -1)
                    mixed = torch.bmm(narrow, wide[piece.place]).view(low.shape[0] * low.shape[1], -1)
                    mixing_grad[piece.tap, plan.channels[piece.level]].addmm_(low.flatten(0, 1).t(), mixed)
        shape = (plan.kernel, weight.shape[1], plan.kernel, plan.outputs)
        weight_grad = mixing_grad.view(shape).permute(3, 1, 0, 2)
        bias_grad = grad.sum((0, 1, 2)) if ctx.has_bias else None
        return weight_grad, bias_grad, None, *([None] * len(levels))


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    """Return ``(batch, height, width, channel)``, contiguous; no copy if it already lies so."""
    return maps.permute(0, 2, 3, 1).contiguous()
