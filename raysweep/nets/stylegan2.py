"""The StyleGAN2 generator with skip connections, without labels.

Karras et al. 2020 (1912.04958) in the form of stylegan2-ada (2006.06676). Modules, parameters and
buffers carry the names of the official PyTorch state dict, so that its tensors load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import nn

from raysweep.config import Config, ConfigError
from raysweep.nets.equalised import EqualisedLinear
from raysweep.nets.fir import fir_kernel, upsample2d
from raysweep.nets.style import LatentMapping, NoisySynthesis
from raysweep.nets.stylegan2_layers import SynthesisLayer, ToRgb, in_working_format

CLAMP = 256.0
MAPPING_LR_MULTIPLIER = 0.01


class StyleGan2Config(Config):
    """Sizes of generator and discriminator.

    Attributes:
        resolution: side of the images, a power of two from 16 to 1024.
        z_dim: size of the latent code.
        w_dim: size of the intermediate code, and of the layers of the mapping.
        mapping_layers: fully connected layers from one to the other.
        channel_base: channels at resolution ``r`` are ``channel_base // r``, ...
        channel_max: ... but never more than this.
        mbstd_group: images over which the discriminator takes a standard deviation; smaller
            batches are one group.
        half_blocks: highest resolutions computed in half precision on a GPU. Unless 0, activations
            of all layers are clamped to [-256, 256], on the CPU too.
    """

    resolution: int = Field(default=256, ge=16, le=1024)
    z_dim: int = Field(default=512, ge=1)
    w_dim: int = Field(default=512, ge=1)
    mapping_layers: int = Field(default=8, ge=1)
    channel_base: int = Field(default=32768, ge=16)
    channel_max: int = Field(default=512, ge=1)
    mbstd_group: int = Field(default=4, ge=1)
    half_blocks: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sizes_fit(self) -> StyleGan2Config:
        if self.resolution & (self.resolution - 1):
            raise ConfigError(
                f"resolution = {self.resolution}: take a power of two from 16 to 1024, e.g. "
                f"{2 ** round(math.log2(self.resolution))}"
            )
        if self.channel_base < self.resolution:
            raise ConfigError(
                f"channel_base = {self.channel_base}: less than one channel at "
                f"{self.resolution} px; take at least resolution = {self.resolution}"
            )
        if self.half_blocks > len(self.resolutions) - 1:
            raise ConfigError(
                f"half_blocks = {self.half_blocks}: take 0 to {len(self.resolutions) - 1} at "
                f"{self.resolution} px; 4 px is always computed in full precision"
            )
        return self

    def channels(self, resolution: int) -> int:
        """Return the number of channels at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Sides of the blocks, from 4 up."""
        return tuple(2**power for power in range(2, self.resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Number of rows of w that the generator takes, one for each layer but most toRGB."""
        return 2 * len(self.resolutions)

    @property
    def limit(self) -> float | None:
        """Largest magnitude of an activation, ``None`` without half precision."""
        return CLAMP if self.half_blocks else None

    def is_half(self, resolution: int) -> bool:
        """Return whether a resolution is computed in half precision on a GPU."""
        return resolution in self.resolutions[len(self.resolutions) - self.half_blocks :]


class Mapping(LatentMapping):
    """From the normalised latent code to the intermediate one, and its running mean ``w_avg``."""

    def __init__(self, config: StyleGan2Config) -> None:
        super().__init__(config.w_dim)
        self.layers = config.mapping_layers
        for index in range(self.layers):
            layer = EqualisedLinear(
                config.w_dim if index else config.z_dim,
                config.w_dim,
                lr_multiplier=MAPPING_LR_MULTIPLIER,
                activate=True,
            )
            self.add_module(f"fc{index}", layer)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, z_dim)`` to ``(batch, w_dim)``."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for index in range(self.layers):
            x = self.get_submodule(f"fc{index}")(x)
        return x


class SynthesisBlock(nn.Module):
    """The layers of one resolution; the block of 4x4 starts from a learned constant."""

    resample_filter: torch.Tensor

    def __init__(self, resolution: int, *, config: StyleGan2Config) -> None:
        super().__init__()
        out = config.channels(resolution)
        self.first = resolution == config.resolutions[0]
        self.half_precision = config.is_half(resolution)
        self.register_buffer("resample_filter", fir_kernel())

        def layer(wide: int, *, up: bool) -> SynthesisLayer:
            return SynthesisLayer(
                wide, out, w_dim=config.w_dim, resolution=resolution, up=up, limit=config.limit
            )

        if self.first:
            self.const = nn.Parameter(torch.randn(out, resolution, resolution))
        else:
            self.conv0 = layer(config.channels(resolution // 2), up=True)
        self.conv1 = layer(out, up=False)
        self.torgb = ToRgb(out, w_dim=config.w_dim, limit=config.limit)

    @property
    def layers(self) -> int:
        """Number of convolutions, which is the number of noise maps and of rows of w."""
        return 1 if self.first else 2

    def forward(
        self,
        x: torch.Tensor | None,
        image: torch.Tensor | None,
        ws: torch.Tensor,
        noise: Sequence[torch.Tensor | None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return activations and image at this resolution, given those of the one below.

        Args:
            x: ``(batch, in, side / 2, side / 2)``, ``None`` at 4x4.
            image: ``(batch, 3, side / 2, side / 2)``, ``None`` at 4x4.
            ws: ``(batch, layers + 1, w_dim)``.
            noise: one for each layer.
        """
        if x is None or image is None:
            x = self.const.expand(len(ws), *self.const.shape)
            x = in_working_format(x, half=self.half_precision, full=ws.dtype)
        else:
            x = in_working_format(x, half=self.half_precision, full=ws.dtype)
            x = self.conv0(x, ws[:, 0], noise[0])
            image = upsample2d(image, self.resample_filter)
        x = self.conv1(x, ws[:, self.layers - 1], noise[-1])
        colours = self.torgb(x, ws[:, self.layers]).to(ws.dtype)
        return x, colours if image is None else image + colours


class Synthesis(NoisySynthesis):
    """From rows of w to images."""

    def __init__(self, config: StyleGan2Config) -> None:
        super().__init__()
        self.config = config
        for side in config.resolutions:
            self.add_module(f"b{side}", SynthesisBlock(side, config=config))

    @property
    def noise_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shape ``(1, side, side)`` of one sample's noise, for each layer in order."""
        first, *others = self.config.resolutions
        sides = [first, *(side for side in others for _ in range(2))]
        return tuple((1, side, side) for side in sides)

    def forward(
        self, ws: torch.Tensor, noise: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Return images.

        Args:
            ws: ``(batch, num_ws, w_dim)``.
            noise: as from :meth:`draw_noise`; the stored maps if left out.

        Returns:
            ``(batch, 3, resolution, resolution)`` of the dtype of ``ws``, nominally in [-1, 1].

        Raises:
            ValueError: wrong number of rows or of noise maps.
        """
        rows, maps = self.config.num_ws, len(self.noise_shapes)
        if ws.ndim != 3 or ws.shape[1] != rows:
            raise ValueError(f"ws of shape {tuple(ws.shape)}: expected (batch, {rows}, w_dim)")
        if noise is not None and len(noise) != maps:
            raise ValueError(f"{len(noise)} noise maps: expected {maps}, one for each layer")
        given: Sequence[torch.Tensor | None] = [None] * maps if noise is None else noise
        x: torch.Tensor | None = None
        image: torch.Tensor | None = None
        start = 0
        for side in self.config.resolutions:
            block = self.get_submodule(f"b{side}")
            assert isinstance(block, SynthesisBlock)
            end = start + block.layers
            x, image = block(x, image, ws[:, start : end + 1], given[start:end])
            start = end
        assert image is not None
        return image


class Generator(nn.Module):
    """Mapping and synthesis; initial weights are drawn from torch's global generator."""

    def __init__(self, config: StyleGan2Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)

    def forward(
        self,
        z: torch.Tensor,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map ``(batch, z_dim)`` to images ``(batch, 3, resolution, resolution)``.

        Args:
            z: standard normal.
            psi: see :meth:`Mapping.truncate`.
            cutoff: see :meth:`Mapping.truncate`.
            noise: see :meth:`Synthesis.forward`.
        """
        w = self.mapping(z)
        ws = w[:, None].expand(-1, self.config.num_ws, -1)
        ws = self.mapping.truncate(ws, psi=psi, cutoff=cutoff)
        images: torch.Tensor = self.synthesis(ws, noise)
        return images
