"""Images of a frozen generator together with the maps that made them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from raysweep import collective, rng
from raysweep.features.activations import recorded
from raysweep.features.generator import default_layers, unpack
from raysweep.nets.gans import Generator
from raysweep.nets.stylegan1 import StyleGan1Config

Made = tuple[torch.Tensor, list[torch.Tensor]]
"""Images ``(batch, 3, R, R)``, nominally in [-1, 1], and float32 maps, fine to coarse."""


def block_outputs(generator: Generator) -> tuple[str, ...]:
    """Name the layers that LAGM reads, fine to coarse.

    Of StyleGAN2 one map per resolution, the block's output; of StyleGAN the two of DatasetGAN.
    """
    if isinstance(generator.config, StyleGan1Config):
        return default_layers(generator)
    return tuple(f"synthesis.b{side}.conv1" for side in generator.config.resolutions[::-1])


class GeneratedImages:
    """Draws images and their maps; the generator is taken over, in eval mode and frozen.

    A batch shared by workers is drawn as a whole and cut, so it does not depend on their number.

    Args:
        generator: any StyleGAN.
        layers: names of its modules, fine to coarse; :func:`block_outputs` if left out.
        psi: truncation.
        cutoff: rows of w that are truncated, from the coarsest; None: all.
        seed: of latents and noise.

    Raises:
        ConfigError: a layer does not exist.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        layers: Sequence[str] | None,
        psi: float,
        cutoff: int | None,
        seed: int,
    ) -> None:
        self.generator = generator.eval().requires_grad_(False)
        self.layers = tuple(layers) if layers else block_outputs(generator)
        self.psi, self.cutoff, self.seed = psi, cutoff, seed
        ws = generator.mapping.w_avg.expand(1, generator.config.num_ws, -1)
        self.channels = tuple(level.shape[1] for level in self._paint(ws, None)[1])

    @torch.no_grad()
    def draw(self, name: str, step: int, *, count: int) -> Made:
        """Return this worker's share of ``count`` images; noise is drawn for each of them.

        Args:
            name: what the images are for: other names, other images.
            step: steps taken before.
            count: images over all workers, which must divide it.
        """
        generator, device = self.generator, self.generator.mapping.w_avg.device
        stream = rng.generator(self.seed, "latents", name, step)
        z = torch.randn((count, generator.config.z_dim), generator=stream)
        noise = [
            collective.share(torch.randn((count, *shape), generator=stream)).to(device)
            for shape in generator.synthesis.noise_shapes
        ]
        w = generator.mapping(collective.share(z).to(device))
        ws = w[:, None].expand(-1, generator.config.num_ws, -1)
        return self._paint(generator.mapping.truncate(ws, psi=self.psi, cutoff=self.cutoff), noise)

    @torch.no_grad()
    def of_codes(self, codes: torch.Tensor) -> Made:
        """Return what codes ``(batch, length)`` make, see :mod:`raysweep.features.generator`."""
        return self._paint(*unpack(codes, self.generator))

    def _paint(self, ws: torch.Tensor, noise: list[torch.Tensor] | None) -> Made:
        with torch.no_grad(), recorded(self.generator, self.layers) as found:
            images = self.generator.synthesis(ws, noise)
        return images, [found[name].float() for name in self.layers]
