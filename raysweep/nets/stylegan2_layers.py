"""Layers of the StyleGAN2 generator (1912.04958 section 2.2), named as in the official state."""

from __future__ import annotations

import math

import torch
from torch import nn

from raysweep.nets.equalised import LRELU_GAIN, EqualisedLinear, clamp, lrelu
from raysweep.nets.fir import fir_kernel
from raysweep.nets.modulated import modulated_conv2d


def in_working_format(x: torch.Tensor, *, half: bool, full: torch.dtype) -> torch.Tensor:
    """Return ``x`` in the dtype and the memory layout in which a block is computed.

    Channels last on the CPU and in half precision, where its convolutions are faster.

    Args:
        x: ``(batch, channels, height, width)``.
        half: whether the block uses half precision where there is a GPU.
        full: dtype of a block that does not.
    """
    if not x.is_cuda:
        return x.to(dtype=full, memory_format=torch.channels_last)
    if half:
        return x.to(dtype=torch.float16, memory_format=torch.channels_last)
    return x.to(dtype=full, memory_format=torch.contiguous_format)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: size of a row of w.
        resolution: side of the output.
        up: whether that is twice the side of the input.
        limit: the output is clamped to this; ``None``: not at all.
    """

    resample_filter: torch.Tensor
    noise_const: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: bool = False,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.limit = up, limit
        self.affine = EqualisedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("resample_filter", fir_kernel())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map ``(batch, in, height, width)`` to ``(batch, out, resolution, resolution)``.

        Args:
            x: activations.
            w: ``(batch, w_dim)``.
            noise: ``(batch, 1, resolution, resolution)``; the stored map if left out.
        """
        noise = self.noise_const if noise is None else noise
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            up=self.resample_filter if self.up else None,
            gain=LRELU_GAIN,
        )
        # one after the other, because their sum would be as large as x
        x = x.add_((noise * (self.noise_strength * LRELU_GAIN)).to(x.dtype))
        x = x.add_((self.bias * LRELU_GAIN).to(x.dtype)[:, None, None])
        return clamp(lrelu(x), self.limit)


class ToRgb(nn.Module):
    """Modulated 1x1 convolution to three colours, neither demodulated nor activated.

    Args:
        in_channels: channels of the input.
        w_dim: size of a row of w.
        limit: the output is clamped to this; ``None``: not at all.
    """

    def __init__(self, in_channels: int, *, w_dim: int, limit: float | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.affine = EqualisedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in, height, width)`` and ``(batch, w_dim)`` to ``(batch, 3, ...)``."""
        style = self.affine(w)
        colours = modulated_conv2d(x, self.weight, style, demodulate=False, gain=self.weight_gain)
        return clamp(colours + self.bias.to(x.dtype)[:, None, None], self.limit)
