"""Layers with an equalised learning rate and the leaky ReLU of StyleGAN2.

Weights are stored with unit variance and scaled by ``1 / sqrt(fan in)`` at run time (Karras et al.
2018, 1710.10196 section 4.1), so that one learning rate suits all layers. The activation is a leaky
ReLU times ``sqrt(2)``. It is positively homogeneous: its gain is multiplied into the few weights
in front of it instead of the many activations behind it.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from raysweep.nets.fir import filter2d, fir_kernel

SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)


def lrelu(x: torch.Tensor) -> torch.Tensor:
    """Return the leaky ReLU of ``x``, in place and without its gain.

    In place because activations are most of the memory; no convolution needs its output again.
    """
    return F.leaky_relu_(x, SLOPE)


def clamp(x: torch.Tensor, limit: float | None) -> torch.Tensor:
    """Limit ``x`` to ``[-limit, limit]``; ``None`` leaves it as it is."""
    return x if limit is None else x.clamp(-limit, limit)


class EqualisedLinear(nn.Module):
    """A fully connected layer, optionally with activation.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias_init: initial value of the bias.
        lr_multiplier: how much slower than others the layer learns.
        activate: whether the leaky ReLU with its gain follows.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))
        out_gain = LRELU_GAIN if activate else 1.0
        self.weight_gain = out_gain * lr_multiplier / math.sqrt(in_features)
        self.bias_gain = out_gain * lr_multiplier
        self.activate = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in)`` to ``(batch, out)``."""
        out = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return lrelu(out) if self.activate else out


class EqualisedConv2d(nn.Module):
    """A convolution that keeps or halves the size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, 1 or 3.
        bias: whether there is one.
        activate: whether the leaky ReLU with its gain follows.
        down: whether the size is halved, behind the low-pass filter.
        limit: the output is clamped to this before ``gain`` applies; ``None``: not at all.
    """

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        activate: bool = True,
        down: bool = False,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", fir_kernel())
        self.out_gain = LRELU_GAIN if activate else 1.0
        self.weight_gain = self.out_gain / math.sqrt(in_channels * kernel**2)
        self.activate, self.down, self.limit = activate, down, limit

    def forward(self, x: torch.Tensor, *, gain: float = 1.0) -> torch.Tensor:
        """Map ``(batch, in, height, width)`` to ``(batch, out, height, width)`` or halves of them.

        Args:
            x: of any float dtype, in which the convolution is computed.
            gain: factor on the output.
        """
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * (self.out_gain * gain)).to(x.dtype)
        side = weight.shape[-1]
        if not self.down:
            out = F.conv2d(x, weight, bias, padding=side // 2)
        elif side == 1:  # only the pixels that remain are mixed
            small = filter2d(x, self.resample_filter, padding=1, stride=2)
            out = F.conv2d(small, weight, bias)
        else:
            smooth = filter2d(x, self.resample_filter, padding=2)
            out = F.conv2d(smooth, weight, bias, stride=2)
        out = lrelu(out) if self.activate else out
        return clamp(out, None if self.limit is None else self.limit * gain)
