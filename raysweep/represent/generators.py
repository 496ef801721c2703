"""Generators on disk, and the images that they make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.nets.gans import ARCHITECTURES, Generator, architecture, build_generator

BATCH = 64


def save_generator(generator: Generator, path: Path | str) -> None:
    """Write a generator and its config as one safetensors file."""
    tensors = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    header = {architecture(generator.config): json.dumps(to_dict(generator.config))}
    safetensors.torch.save_file(tensors, str(path), metadata=header)


def read_generator(path: Path | str) -> Generator:
    """Return the generator of a file made by :func:`save_generator`, in eval mode on the CPU.

    Raises:
        ConfigError: the file is unreadable or holds no generator.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: not a readable safetensors file ({error})") from None
    kind = next((name for name in ARCHITECTURES if name in header), None)
    if kind is None:
        raise ConfigError(f"{path}: holds no generator; import it with jobs/import_weights.py")
    try:
        generator = build_generator(from_dict(ARCHITECTURES[kind], json.loads(header[kind])))
        generator.load_state_dict(safetensors.torch.load_file(str(path)))
    except (ValueError, RuntimeError) as error:  # settings; tensors that do not fit them
        raise ConfigError(f"{path}: holds no generator that can be built ({error})") from None
    return generator.eval().requires_grad_(False)


@torch.no_grad()
def sample(
    generator: Generator, count: int, *, seed: int, psi: float = 1.0
) -> Iterator[torch.Tensor]:
    """Yield generated images in batches; image i depends on the seed and i only.

    Args:
        generator: in eval mode.
        count: number of images.
        seed: of latents and noise.
        psi: truncation.

    Yields:
        ``(at most 64, 3, resolution, resolution)`` uint8 on the generator's device.
    """
    for start in range(0, count, BATCH):
        indices = range(start, min(start + BATCH, count))
        yield to_uint8(generator.synthesis(*latents(generator, indices, seed=seed, psi=psi)))


@torch.no_grad()
def latents(
    generator: Generator, indices: range, *, seed: int, psi: float
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return rows of w ``(count, num_ws, w_dim)`` and noise maps of samples, by their indices."""
    device = generator.mapping.w_avg.device
    streams = [rng.generator(seed, "sample", index) for index in indices]
    z = torch.cat([torch.randn(1, generator.config.z_dim, generator=g) for g in streams])
    noise = [
        torch.cat([torch.randn(1, *shape, generator=g) for g in streams]).to(device)
        for shape in generator.synthesis.noise_shapes
    ]
    ws = generator.mapping(z.to(device))[:, None].expand(-1, generator.config.num_ws, -1)
    return generator.mapping.truncate(ws, psi=psi), noise


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Map images nominally in [-1, 1] to uint8 (``127.5 x + 128``, cut off, as official)."""
    return (images * 127.5 + 128).clamp(0, 255).byte()
