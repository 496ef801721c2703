"""StyleGAN and StyleGAN2 under one name each for generator, discriminator and sizes.

Both generators have ``mapping``, ``synthesis(ws, noise)``, ``synthesis.noise_shapes`` and
``config.num_ws``; what differs is inside.
"""

from __future__ import annotations

from raysweep.nets import stylegan1, stylegan1_discriminator, stylegan2, stylegan2_discriminator
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import StyleGan2Config

NetworkConfig = StyleGan1Config | StyleGan2Config
Generator = stylegan1.Generator | stylegan2.Generator
Discriminator = stylegan1_discriminator.Discriminator | stylegan2_discriminator.Discriminator

ARCHITECTURES: dict[str, type[NetworkConfig]] = {
    "stylegan1": StyleGan1Config,
    "stylegan2": StyleGan2Config,
}


def architecture(config: NetworkConfig) -> str:
    """Return the key of :data:`ARCHITECTURES` that a config belongs to."""
    return next(name for name, kind in ARCHITECTURES.items() if isinstance(config, kind))


def build_generator(config: NetworkConfig) -> Generator:
    """Return a generator with fresh weights, drawn from torch's global generator."""
    if isinstance(config, StyleGan1Config):
        return stylegan1.Generator(config)
    return stylegan2.Generator(config)


def build_discriminator(config: NetworkConfig) -> Discriminator:
    """Return a discriminator with fresh weights, drawn from torch's global generator."""
    if isinstance(config, StyleGan1Config):
        return stylegan1_discriminator.Discriminator(config)
    return stylegan2_discriminator.Discriminator(config)
