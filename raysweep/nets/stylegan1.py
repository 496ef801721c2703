"""StyleGAN generator (Karras et al. 2019, 1812.04948) at a fixed resolution.

Progressive growing is left out: every block and only the last toRGB layer take part. Names of
tensors are those of the PyTorch port that DatasetGAN and LAGM load.

Two readings of DatasetGAN's features are outputs of modules and can be hooked: ``epi1`` and
``epi2`` give the AdaIN outputs, ``conv`` (4x4) and ``conv1`` the raw second convolution with bias
and before noise, as DatasetGAN's code takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from raysweep.config import Config, ConfigError
from raysweep.nets.style import LatentMapping, NoisySynthesis
from raysweep.nets.stylegan1_layers import SLOPE, Epilogue, EqualisedConv, EqualisedLinear, UpConv

LR_MULTIPLIER = 0.01
"""Learning-rate multiplier of the mapping network."""


class StyleGan1Config(Config):
    """Sizes of a StyleGAN generator and discriminator.

    Attributes:
        resolution: of the square images in pixels, a power of two from 16 to 1024.
        z_dim: length of the latents z.
        w_dim: length of the style vectors w and of the hidden layers of the mapping network.
        mapping_layers: dense layers from z to w.
        channel_base: stage s (s = 1 at 4x4, one more per doubling) has
            ``min(channel_base / 2^s, channel_max)`` channels.
        channel_max: see ``channel_base``.
        instance_norm_eps: added to the variance. 1e-8 in the official code, 1e-5 in the port.
        blur: smooth with [1, 2, 1] after upsampling and before downsampling.
        mbstd_group: images per group of the discriminator's minibatch standard deviation.
    """

    resolution: int = Field(default=256, ge=16, le=1024)
    z_dim: int = Field(default=512, ge=1)
    w_dim: int = Field(default=512, ge=1)
    mapping_layers: int = Field(default=8, ge=1)
    channel_base: int = Field(default=8192, ge=1)
    channel_max: int = Field(default=512, ge=1)
    instance_norm_eps: float = Field(default=1e-8, gt=0)
    blur: bool = True
    mbstd_group: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _resolution_fits(self) -> StyleGan1Config:
        if self.resolution & (self.resolution - 1):
            raise ConfigError(
                f"resolution = {self.resolution}: must be a power of two from 16 to 1024; choose "
                "the next one and resize the images"
            )
        if self.channel_base < self.resolution // 2:
            raise ConfigError(
                f"channel_base = {self.channel_base}: leaves no channel at {self.resolution} px; "
                f"use {self.resolution // 2} or more"
            )
        return self

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions of the blocks, 4 first."""
        return tuple(2**k for k in range(2, self.resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Rows of w that the generator takes, one for each AdaIN, and its noise maps."""
        return 2 * len(self.resolutions)

    def channels(self, resolution: int) -> int:
        """Return the channels of the block that ends at a resolution of 2 or more."""
        return min(self.channel_base // (resolution // 2), self.channel_max)


class InputBlock(nn.Module):
    """The learned 4x4 constant, styled, then a convolution, styled."""

    def __init__(self, config: StyleGan1Config) -> None:
        super().__init__()
        channels = config.channels(4)
        self.const = nn.Parameter(torch.ones(1, channels, 4, 4))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epi1 = Epilogue(channels, w_dim=config.w_dim, eps=config.instance_norm_eps)
        self.conv = EqualisedConv(channels, channels, 3)
        self.epi2 = Epilogue(channels, w_dim=config.w_dim, eps=config.instance_norm_eps)

    def forward(self, ws: torch.Tensor, noise: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Map two rows of ws ``(batch, 2, w_dim)`` to ``(batch, channels, 4, 4)``."""
        x = (self.const + self.bias[:, None, None]).expand(len(ws), -1, -1, -1)
        x = self.epi1(x, ws[:, 0], noise[0])
        styled: torch.Tensor = self.epi2(self.conv(x), ws[:, 1], noise[1])
        return styled


class Block(nn.Module):
    """Upsampling convolution, styled, then a convolution, styled."""

    def __init__(self, resolution: int, config: StyleGan1Config) -> None:
        super().__init__()
        inputs, channels = config.channels(resolution // 2), config.channels(resolution)
        self.conv0_up = UpConv(inputs, channels, resolution=resolution, blur=config.blur)
        self.epi1 = Epilogue(channels, w_dim=config.w_dim, eps=config.instance_norm_eps)
        self.conv1 = EqualisedConv(channels, channels, 3)
        self.epi2 = Epilogue(channels, w_dim=config.w_dim, eps=config.instance_norm_eps)

    def forward(
        self, x: torch.Tensor, ws: torch.Tensor, noise: Sequence[torch.Tensor | None]
    ) -> torch.Tensor:
        """Map ``(batch, inputs, r, r)`` to ``(batch, channels, 2 r, 2 r)``; ws as above."""
        x = self.epi1(self.conv0_up(x), ws[:, 0], noise[0])
        styled: torch.Tensor = self.epi2(self.conv1(x), ws[:, 1], noise[1])
        return styled


class Mapping(LatentMapping):
    """From z to w: normalise z, then dense layers with leaky ReLU; keeps the mean of w."""

    def __init__(self, config: StyleGan1Config) -> None:
        super().__init__(config.w_dim)
        sizes = (config.z_dim, *[config.w_dim] * config.mapping_layers)
        self.depth = config.mapping_layers
        for i in range(self.depth):
            layer = EqualisedLinear(
                sizes[i], sizes[i + 1], gain=math.sqrt(2), lr_multiplier=LR_MULTIPLIER
            )
            self.add_module(f"dense{i}", layer)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map standard normal ``(batch, z_dim)`` to ``(batch, w_dim)``."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for i in range(self.depth):
            x = F.leaky_relu(self.get_submodule(f"dense{i}")(x), SLOPE)
        return x


class Synthesis(NoisySynthesis):
    """From one row of w per AdaIN to an image."""

    def __init__(self, config: StyleGan1Config) -> None:
        super().__init__()
        self.resolutions = config.resolutions
        self.blocks = nn.ModuleDict()
        for r in self.resolutions:
            self.blocks[f"{r}x{r}"] = InputBlock(config) if r == 4 else Block(r, config)
        self.torgb = EqualisedConv(config.channels(config.resolution), 3, 1, gain=1)

    @property
    def noise_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shape ``(1, r, r)`` of one image's noise, for each AdaIN in order."""
        return tuple((1, r, r) for r in self.resolutions for _ in range(2))

    def forward(
        self, ws: torch.Tensor, noise: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Map ``(batch, num_ws, w_dim)`` to images ``(batch, 3, R, R)``, nominally in [-1, 1].

        Args:
            ws: one row per AdaIN, 4x4 first. Style mixing joins leading rows of one w with trailing
                rows of another.
            noise: as from :meth:`draw_noise`; None for images without noise.

        Raises:
            ValueError: wrong number of rows or of noise maps.
        """
        count = len(self.noise_shapes)
        maps: list[torch.Tensor | None] = [None] * count if noise is None else list(noise)
        if ws.ndim != 3 or ws.shape[1] != count:
            raise ValueError(f"ws of shape {tuple(ws.shape)}: expected (batch, {count}, w_dim)")
        if len(maps) != count:
            raise ValueError(f"{len(maps)} noise maps: expected {count}, one for each AdaIN")
        first, *rest = self.blocks.values()
        x = first(ws[:, :2], maps[:2])
        for i, block in enumerate(rest, start=1):
            x = block(x, ws[:, 2 * i : 2 * i + 2], maps[2 * i : 2 * i + 2])
        image: torch.Tensor = self.torgb(x)
        return image


class Generator(nn.Module):
    """Mapping and synthesis; initial weights are drawn from torch's global generator."""

    def __init__(self, config: StyleGan1Config) -> None:
        super().__init__()
        self.config = config
        self.g_mapping = Mapping(config)
        self.g_synthesis = Synthesis(config)

    @property
    def mapping(self) -> Mapping:
        """The mapping network, under the name that StyleGAN2 gives it."""
        return self.g_mapping

    @property
    def synthesis(self) -> Synthesis:
        """The synthesis network, under the name that StyleGAN2 gives it."""
        return self.g_synthesis

    def forward(
        self,
        z: torch.Tensor,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map standard normal ``(batch, z_dim)`` to images ``(batch, 3, R, R)``.

        Args:
            z: latents.
            psi: see :meth:`Mapping.truncate`.
            cutoff: see :meth:`Mapping.truncate`.
            noise: see :meth:`Synthesis.forward`.
        """
        ws = self.mapping(z)[:, None].expand(-1, self.config.num_ws, -1)
        ws = self.mapping.truncate(ws, psi=psi, cutoff=cutoff)
        images: torch.Tensor = self.synthesis(ws, noise)
        return images
