"""The first convolution over a hypercolumn, without the hypercolumn.

A hypercolumn stacks the maps of all levels, each resized to the output (GanOrCon 4.2): with a
ResNet-50 3,840 channels at full resolution. Resizing mixes pixels and a 1x1 convolution mixes
channels, so the two commute: convolve each level at its own resolution, resize the few results,
sum. A 3x3 convolution is nine 1x1 ones whose results are moved by a pixel before the sum.
The outcome is the same number for number, up to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from raysweep.nets.interpolation import Strip, strips

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
    2)`` over the materialised hypercolumn: same shapes, same order of channels, same gradients.

    Args:
        channels: channels of each level, shallow to deep.
        out_channels: number of output channels.
        kernel: an odd number of taps per axis; zero padding keeps the size.
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
            ``(batch, out_channels, height, width)``.

        Raises:
            ValueError: number of levels or their channels differ from ``channels``, or a level asks
                for a gradient: only weight and bias have one.
        """
        found = tuple(level.shape[1] for level in levels)
        if found != self.channels:
            raise ValueError(f"levels have {found} channels: expected {self.channels}")
        if torch.is_grad_enabled() and any(level.requires_grad for level in levels):
            raise ValueError("levels require grad: the representation is frozen, detach them")
        dtype = _dtype_of_products(self.weight)
        weights = self.weight.to(dtype).split(self.channels[::-1], dim=1)
        resized, parts, out = [], [], None
        for level, weight in zip(reversed(levels), weights, strict=True):
            if level.shape[-2:] == size:
                mixed = _convolve(level.to(dtype), weight)
                out = mixed if out is None else out + mixed
            else:
                resized.append(level.to(dtype))
                parts.append(weight)
        if resized:
            weight = self.weight.to(dtype) if out is None else torch.cat(parts, dim=1)
            summed: torch.Tensor = _ResizedSum.apply(weight, size, *resized)
            out = summed if out is None else summed.add_(out)
        assert out is not None
        out = out if self.bias is None else out.add_(self.bias)
        return out.permute(0, 3, 1, 2)


def _convolve(level: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolve a level that has the output's size already; return image y x o."""
    if weight.shape[-1] == 1:  # as a matrix product: torch's own 1x1 convolution is slower on CPUs
        return level.permute(0, 2, 3, 1) @ weight.flatten(1).t()
    return F.conv2d(level, weight, padding="same").permute(0, 2, 3, 1)


def _dtype_of_products(weight: torch.Tensor) -> torch.dtype:
    """Return the dtype in which to multiply: autocast's inside its context, else the weight's."""
    kind = weight.device.type
    if kind == "meta":  # shapes only: there is no autocast
        return weight.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _ResizedSum(torch.autograd.Function):
    """``conv2d(hypercolumn(levels), weight)`` at the levels' own resolution, deepest level first.

    Per tile of the output: mix channels at low resolution, stretch to the tile's rows, lay all
    levels and horizontal taps side by side, stretch and sum them by one product per row. Letters in
    comments: h w rows and columns of a patch, y x of the output, v j vertical and horizontal tap,
    c o input and output channel, s columns side by side. Letters in parentheses are one axis.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, size: Size, *levels: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, *levels)
        ctx.size = size
        plan = _Plan(weight, levels, size)
        mixing = weight.permute(3, 2, 1, 0).flatten(0, 1).contiguous()  # (j v) c o
        out = weight.new_empty(len(levels[0]), *size, plan.outputs)  # image y x o
        for image, rows, columns in plan.tiles():
            side = plan.side(rows, columns)  # y s o
            for piece in plan.pieces(image, rows, columns):
                mixed = plan.mixed(len(piece.pixels))  # (j v) (h w) o
                pixels = piece.pixels.expand(len(mixed), -1, -1)
                torch.bmm(pixels, mixing[:, piece.channels], out=mixed)
                for stacked, place in zip(mixed.chunk(plan.kernel), piece.places, strict=True):
                    stacked = stacked.view(piece.stretch.shape[1], -1)  # (v h) (w o)
                    torch.mm(piece.stretch, stacked, out=side[:, place].view(len(side), -1))
            tile = torch.bmm(columns.joined.expand(len(side), -1, -1), side)  # y x o
            out[image, rows.out, columns.out] = tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, *levels = ctx.saved_tensors
        plan = _Plan(weight, levels, ctx.size)
        # summed in fp32 over the tiles even where the products are in bf16
        exact = torch.promote_types(weight.dtype, torch.float32)
        total = weight.new_zeros(plan.kernel**2, *weight.shape[1::-1], dtype=exact)  # (j v) c o
        for image, rows, columns in plan.tiles():
            tile = grad[image, rows.out, columns.out].contiguous()  # y x o
            side = plan.side(rows, columns)  # y s o
            torch.bmm(columns.joined.t().expand(len(side), -1, -1), tile, out=side)
            for piece in plan.pieces(image, rows, columns):
                mixed = plan.mixed(len(piece.pixels))  # (j v) (h w) o
                for stacked, place in zip(mixed.chunk(plan.kernel), piece.places, strict=True):
                    stacked = stacked.view(piece.stretch.shape[1], -1)  # (v h) (w o)
                    torch.mm(piece.stretch.t(), side[:, place].view(len(side), -1), out=stacked)
                pixels = piece.pixels.t().expand(len(mixed), -1, -1)
                if total.dtype == mixed.dtype:
                    total[:, piece.channels].baddbmm_(pixels, mixed)
                else:
                    total[:, piece.channels] += torch.bmm(pixels, mixed)
        taps = total.unflatten(0, (plan.kernel, plan.kernel))
        return taps.permute(3, 2, 1, 0).to(weight.dtype), None, *([None] * len(levels))


class _Piece(NamedTuple):
    """What a tile reads of one level."""

    pixels: torch.Tensor  # (h w) c
    channels: slice  # of c over all levels
    stretch: torch.Tensor  # y (v h)
    places: list[slice]  # of s, one per horizontal tap


class _Plan:
    """How the output is cut into tiles, what of which level a tile reads, and room to work in."""

    def __init__(self, weight: torch.Tensor, levels: Sequence[torch.Tensor], size: Size) -> None:
        self.outputs, self.kernel = weight.shape[0], weight.shape[-1]
        heights, widths = (tuple(level.shape[axis] for level in levels) for axis in (2, 3))
        self.rows, self.columns = (
            strips(sizes, px, kernel=self.kernel, dtype=weight.dtype, device=weight.device)
            for sizes, px in zip((heights, widths), size, strict=True)
        )
        self.maps = [level.permute(0, 2, 3, 1) for level in levels]  # image h w c
        ends = itertools.accumulate((level.shape[1] for level in levels), initial=0)
        self.channels = [slice(*pair) for pair in itertools.pairwise(ends)]
        # one allocation for all tiles: fresh memory costs as much time as the products in it
        pairs = list(itertools.product(self.rows, self.columns))
        self._side = weight.new_empty(
            max(len(r.joined) * c.joined.shape[1] for r, c in pairs), self.outputs
        )
        areas = (
            _length(a) * _length(b) for r, c in pairs for a, b in zip(r.reads, c.reads, strict=True)
        )
        self._mixed = weight.new_empty(self.kernel**2 * max(areas), self.outputs)

    def tiles(self) -> Iterator[tuple[int, Strip, Strip]]:
        """Yield image, rows and columns of every tile of the output."""
        return itertools.product(range(len(self.maps[0])), self.rows, self.columns)

    def side(self, rows: Strip, columns: Strip) -> torch.Tensor:
        """Return room for all levels side by side: y s o."""
        shape = len(rows.joined), columns.joined.shape[1]
        return self._side[: shape[0] * shape[1]].view(*shape, self.outputs)

    def mixed(self, pixels: int) -> torch.Tensor:
        """Return room for a patch with mixed channels: (j v) (h w) o."""
        taps = self.kernel**2
        return self._mixed[: taps * pixels].view(taps, pixels, self.outputs)

    def pieces(self, image: int, rows: Strip, columns: Strip) -> Iterator[_Piece]:
        """Yield what a tile is summed from, level by level."""
        start = 0
        for i, (maps, channels) in enumerate(zip(self.maps, self.channels, strict=True)):
            patch = maps[image, rows.reads[i], columns.reads[i]]  # h w c
            ends = [start + tap * patch.shape[1] for tap in range(self.kernel + 1)]
            places = [slice(*pair) for pair in itertools.pairwise(ends)]
            yield _Piece(patch.flatten(0, 1), channels, rows.weights[i], places)
            start = ends[-1]


def _length(part: slice) -> int:
    return int(part.stop - part.start)
