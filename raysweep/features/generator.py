"""Features of a generator: the maps that it makes on the way to an image.

An image is given as its code: the rows of w, and the noise maps if they were found as well. Both
lie flat in one vector, so that codes are indexed, stored and batched like images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from raysweep.features.activations import recorded
from raysweep.nets.gans import Generator
from raysweep.nets.stylegan1 import StyleGan1Config


def default_layers(generator: Generator) -> tuple[str, ...]:
    """Name two maps per resolution, from the highest to the lowest (DatasetGAN 3.1).

    Of StyleGAN2 the outputs of both convolutions, of StyleGAN those of the second AdaIN and the
    second convolution, which DatasetGAN's released code takes; its paper says both AdaINs, that is
    ``epi2`` and ``epi1``.
    """
    sides = generator.config.resolutions[::-1]
    if isinstance(generator.config, StyleGan1Config):
        blocks = {side: f"g_synthesis.blocks.{side}x{side}" for side in sides}
        second = {side: "conv" if side == sides[-1] else "conv1" for side in sides}
        return tuple(f"{blocks[s]}.{name}" for s in sides for name in ("epi2", second[s]))
    names = [f"synthesis.b{side}.conv{index}" for side in sides for index in (1, 0)]
    return tuple(name for name in names if name != "synthesis.b4.conv0")  # 4x4 has only one


def pack(ws: torch.Tensor, noise: Sequence[torch.Tensor] | None) -> torch.Tensor:
    """Return codes ``(batch, length)`` of ``ws`` ``(batch, num_ws, w_dim)`` and noise maps."""
    return torch.cat([part.flatten(1) for part in (ws, *(noise or ()))], dim=1)


def unpack(
    codes: torch.Tensor, generator: Generator
) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
    """Return rows of w and noise maps of codes made by :func:`pack`; None where they hold none.

    Raises:
        ValueError: the codes belong to another generator.
    """
    config, shapes = generator.config, generator.synthesis.noise_shapes
    rows = config.num_ws * config.w_dim
    maps = [side * side for _, side, _ in shapes]
    if codes.shape[1] not in (rows, rows + sum(maps)):
        raise ValueError(
            f"codes of length {codes.shape[1]}: this generator takes {rows}, or "
            f"{rows + sum(maps)} with noise; project the images with it"
        )
    ws = codes[:, :rows].unflatten(1, (config.num_ws, config.w_dim))
    if codes.shape[1] == rows:
        return ws, None
    parts = codes[:, rows:].split(maps, dim=1)
    return ws, [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


class GeneratorFeatures:
    """Chosen activations of a frozen generator; the generator is taken over.

    Args:
        generator: in eval mode.
        layers: names of its modules, fine to coarse; all convolutions if left out.

    Raises:
        ConfigError: a layer does not exist.
    """

    takes_codes = True

    def __init__(self, generator: Generator, layers: Sequence[str] | None = None) -> None:
        self.generator = generator.eval().requires_grad_(False)
        self.layers = tuple(layers) if layers else default_layers(generator)
        one = generator.mapping.w_avg.expand(1, generator.config.num_ws, -1)
        self.channels: tuple[int, ...] = tuple(level.shape[1] for level in self(pack(one, None)))

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return one map per layer for codes ``(batch, length)``, without gradient."""
        ws, noise = unpack(inputs, self.generator)
        with recorded(self.generator, self.layers) as found:
            self.generator.synthesis(ws, noise)
        return [found[name] for name in self.layers]
