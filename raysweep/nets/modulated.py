"""Modulated convolution: each sample has weights of its own, scaled by its style.

Karras et al. 2020 (1912.04958) section 2.2: ``w'_oikl = s_i w_oikl``, then each output channel of
``w'`` is divided by its norm (demodulation).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from raysweep.nets.fir import filter2d

Method = Literal["scaled", "grouped"]

EPSILON = 1e-8


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    *,
    demodulate: bool = True,
    up: torch.Tensor | None = None,
    gain: float = 1.0,
    method: Method = "scaled",
) -> torch.Tensor:
    """Convolve each sample with its own weights.

    Args:
        x: ``(batch, in, height, width)``; the convolution is computed in its dtype.
        weight: ``(out, in, side, side)`` of odd side, shared by the samples.
        style: ``(batch, in)``.
        demodulate: whether output channels are brought to unit expected variance.
        up: ``None``, or the low-pass kernel ``(4, 4)`` with which the size is doubled.
        gain: factor on the result.
        method: ``scaled`` scales activations before and after one shared convolution;
            ``grouped`` builds each sample's weights and makes one grouped convolution.

    Returns:
        ``(batch, out, height, width)``, doubled if ``up``; dtype of ``x``.
    """
    if demodulate and x.dtype == torch.float16:
        # Cancels in the demodulation, and keeps half precision from overflowing before it.
        weight = weight / (weight[0].numel() ** 0.5 * weight.abs().amax((1, 2, 3), keepdim=True))
        style = style / style.abs().amax(1, keepdim=True)
    compute = _scaled if method == "scaled" else _grouped
    return compute(x, weight, style, demodulate, up, gain)


def _scaled(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    demodulate: bool,
    up: torch.Tensor | None,
    gain: float,
) -> torch.Tensor:
    before = style if demodulate else style * gain
    scaled = x * before.to(x.dtype)[:, :, None, None]
    out = convolve(scaled, weight.to(x.dtype), up=up)
    if demodulate:
        energy = style.square() @ weight.square().sum((2, 3)).T
        after = (energy + EPSILON).rsqrt() * gain
        out = out * after.to(x.dtype)[:, :, None, None]
    return out


def _grouped(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    demodulate: bool,
    up: torch.Tensor | None,
    gain: float,
) -> torch.Tensor:
    own = weight * style[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + EPSILON).rsqrt()
    batch, _, height, width = x.shape
    merged = x.reshape(1, -1, height, width)
    kernels = (own * gain).to(x.dtype).flatten(0, 1)
    out = convolve(merged, kernels, up=up, groups=batch)
    return out.reshape(batch, -1, *out.shape[2:])


def convolve(
    x: torch.Tensor, weight: torch.Tensor, *, up: torch.Tensor | None, groups: int = 1
) -> torch.Tensor:
    """Convolve, keeping the size or doubling it.

    Doubling is a transposed convolution with stride two, which leaves a border of one pixel for
    the low-pass filter: four times fewer products than upsampling first.

    Args:
        x: ``(batch, groups * in, height, width)``.
        weight: ``(groups * out, in, side, side)``.
        up: ``None``, or the low-pass kernel ``(4, 4)``; then ``side`` is 3.
        groups: convolutions side by side.

    Returns:
        ``(batch, groups * out, height, width)``, doubled if ``up``.
    """
    if up is None:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
    transposed = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    spread = F.conv_transpose2d(x, transposed, stride=2, groups=groups)
    return filter2d(spread, up, padding=1, gain=4.0)
