"""Layers of StyleGAN (Karras et al. 2019, 1812.04948): equalised weights, blur, AdaIN.

Weights are stored with unit variance and scaled at run time (equalised learning rate).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

SLOPE = 0.2
"""Of every leaky ReLU."""

FLIPPED_FROM = 128
"""Resolution from which the official upsampling convolutions store their kernels flipped."""


class EqualisedLinear(nn.Module):
    """Dense layer whose stored weights have the same scale whatever its size."""

    def __init__(
        self, inputs: int, outputs: int, *, gain: float = 1.0, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain * lr_multiplier / math.sqrt(inputs)
        self.lr_multiplier = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, inputs)`` to ``(batch, outputs)``."""
        return F.linear(x, self.weight * self.scale, self.bias * self.lr_multiplier)


class EqualisedConv(nn.Module):
    """Zero-padded convolution of stride 1 with bias and run-time scale."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, gain: float = math.sqrt(2)
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, inputs, height, width)`` to ``(batch, outputs, height, width)``."""
        weight = self.weight * self.scale
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class Blur(nn.Module):
    """[1, 2, 1] in both directions, normalised, zero outside the image."""

    kernel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (torch.outer(taps, taps) / 16)[None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape ``(batch, channels, height, width)``."""
        count = x.shape[1]
        return F.conv2d(x, self.kernel.expand(count, -1, -1, -1), padding=1, groups=count)


class UpConv(nn.Module):
    """Nearest doubling, 3x3 convolution, blur, bias.

    Doubling and convolution are one transposed convolution with 4x4 taps, sums of shifted copies
    of the kernel, whatever the size. The official code does so from 128 px on, where it takes the
    kernel unflipped; below it convolves the doubled image, which flips it.
    """

    def __init__(self, inputs: int, outputs: int, *, resolution: int, blur: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.intermediate = Blur() if blur else nn.Identity()
        self.scale = math.sqrt(2) / math.sqrt(inputs * 9)
        self.flipped = resolution >= FLIPPED_FROM

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, inputs, r, r)`` to ``(batch, outputs, 2 r, 2 r)``."""
        weight = self.weight * self.scale
        taps = F.pad(weight if self.flipped else weight.flip(2, 3), (1, 1, 1, 1))
        taps = taps[..., 1:, 1:] + taps[..., :-1, 1:] + taps[..., 1:, :-1] + taps[..., :-1, :-1]
        x = F.conv_transpose2d(x, taps.transpose(0, 1), stride=2, padding=1)
        blurred: torch.Tensor = self.intermediate(x)
        return blurred + self.bias[:, None, None]


class ScaledNoise(nn.Module):
    """One noise map, added to every channel with a learned weight, 0 at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Add ``(batch or 1, 1, r, r)`` to ``(batch, channels, r, r)``; None adds nothing."""
        return x if noise is None else x + self.weight[:, None, None] * noise


class TopEpilogue(nn.Module):
    """Noise, leaky ReLU, instance norm."""

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__()
        self.noise = ScaledNoise(channels)
        self.eps = eps

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return a tensor of the same shape, each channel of each image of mean 0."""
        x = F.leaky_relu(self.noise(x, noise), SLOPE)
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.eps)


class StyleModulation(nn.Module):
    """Scale ``s + 1`` and shift ``b`` per channel, affine in w."""

    def __init__(self, w_dim: int, channels: int) -> None:
        super().__init__()
        self.lin = EqualisedLinear(w_dim, 2 * channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Style ``(batch, channels, r, r)`` with ``(batch, w_dim)``."""
        scale, shift = self.lin(w)[:, :, None, None].chunk(2, dim=1)
        styled: torch.Tensor = x * (scale + 1) + shift
        return styled


class Epilogue(nn.Module):
    """What follows every convolution: noise, leaky ReLU, AdaIN (1812.04948 eq. 1)."""

    def __init__(self, channels: int, *, w_dim: int, eps: float) -> None:
        super().__init__()
        self.top_epi = TopEpilogue(channels, eps=eps)
        self.style_mod = StyleModulation(w_dim, channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return a tensor of the shape of ``x``, styled by ``w`` ``(batch, w_dim)``."""
        styled: torch.Tensor = self.style_mod(self.top_epi(x, noise), w)
        return styled
