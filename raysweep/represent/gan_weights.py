"""GAN weights from local files: official pickles, rosinality's checkpoints, the StyleGAN port.

Nothing in the file is run: pickles are read by :mod:`restricted_pickle`, ``.pt`` files as tensors
alone. Every tensor of the networks must be there and none may be left over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.nets.gans import (
    ARCHITECTURES,
    Discriminator,
    Generator,
    NetworkConfig,
    architecture,
    build_discriminator,
    build_generator,
)
from raysweep.represent import gan_layouts as layouts
from raysweep.represent.gan_files import Format, read_gan
from raysweep.represent.gan_layouts import Tensors
from raysweep.represent.weights import mismatch

CARD = "card.json"
GENERATOR = "generator.safetensors"
DISCRIMINATOR = "discriminator.safetensors"

MEAN_LATENTS = 8000
"""Latents averaged for the centre of truncation where a file has none, as DatasetGAN does."""


@dataclass(frozen=True)
class ImportedGan:
    """Weights in the names of ``nets``, float32 on the CPU.

    Attributes:
        source: name of the file they came from.
        sha256: of that file.
        format: layout of that file.
        config: sizes; its type tells StyleGAN from StyleGAN2.
        generator: state dict of the generator.
        discriminator: state dict of the discriminator, if the file has one.
        notes: what was filled in.
        licence: terms of the weights, in the words of whoever imported them.
    """

    source: str
    sha256: str
    format: Format
    config: NetworkConfig
    generator: Tensors = field(repr=False)
    discriminator: Tensors | None = field(repr=False, default=None)
    notes: tuple[str, ...] = ()
    licence: str = "unknown"

    def build_generator(self) -> Generator:
        """Return the generator with these weights, in eval mode on the CPU."""
        generator = _empty_generator(self.config).to_empty(device="cpu")
        generator.load_state_dict(self.generator)
        return generator.eval()

    def build_discriminator(self) -> Discriminator:
        """Return the discriminator with these weights, on the CPU.

        Raises:
            ValueError: the file had none.
        """
        if self.discriminator is None:
            raise ValueError(f"{self.source} holds no discriminator")
        discriminator = _empty_discriminator(self.config).to_empty(device="cpu")
        discriminator.load_state_dict(self.discriminator)
        return discriminator


def import_checkpoint(path: Path | str) -> ImportedGan:
    """Return the networks of a published checkpoint.

    ``.pkl`` files are read as those of StyleGAN2-ADA (also from the StyleGAN3 repository), all
    others as rosinality's or the port's. The generator is the averaged one where there are two.

    Args:
        path: the file.

    Raises:
        ConfigError: the file is unreadable, has no known layout, asks to run code, or tensors are
            missing, left over or of another shape.
    """
    path = Path(path)
    try:
        raw = read_gan(path)
        generator, notes = _fitted_generator(raw.generator, raw.config)
        discriminator = raw.discriminator
        if discriminator is not None:
            expected = _empty_discriminator(raw.config).state_dict()
            discriminator = _fitted("discriminator", discriminator, expected)
    except ValueError as error:
        message = str(error).removeprefix(f"{path}: ")
        raise ConfigError(f"{path}: {message}") from None
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ImportedGan(
        source=path.name,
        sha256=sha256,
        format=raw.format,
        config=raw.config,
        generator=generator,
        discriminator=discriminator,
        notes=notes,
    )


def save_imported(
    imported: ImportedGan, directory: Path | str, *, licence: str | None = None
) -> None:
    """Write the networks as safetensors beside ``card.json``, which says where they came from.

    Args:
        imported: what to write.
        directory: to make; a half-written one is never left behind.
        licence: terms of the weights; those of ``imported`` if left out.

    Raises:
        ConfigError: the directory exists and is not empty, or cannot be written.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} exists and is not empty; choose another")
    card = {
        "source": imported.source,
        "sha256": imported.sha256,
        "format": imported.format,
        "licence": imported.licence if licence is None else licence,
        "architecture": architecture(imported.config),
        "config": to_dict(imported.config),
        "notes": list(imported.notes),
    }
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        safetensors.torch.save_file(imported.generator, str(scratch / GENERATOR))
        if imported.discriminator is not None:
            safetensors.torch.save_file(imported.discriminator, str(scratch / DISCRIMINATOR))
        (scratch / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        scratch.replace(directory)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written ({error}); choose another") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def imported_config(directory: Path | str) -> NetworkConfig:
    """Return the sizes of the networks that :func:`save_imported` wrote.

    Raises:
        ConfigError: the directory is not one of those.
    """
    try:
        card = json.loads((Path(directory) / CARD).read_text(encoding="utf-8"))
        return from_dict(ARCHITECTURES[card["architecture"]], card["config"])
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{directory}: not a directory made by jobs/import_weights.py ({error})"
        ) from None


def read_imported(directory: Path | str) -> ImportedGan:
    """Return what :func:`save_imported` wrote.

    Raises:
        ConfigError: the directory is not one of those, or its parts do not fit each other.
    """
    directory = Path(directory)
    try:
        card = json.loads((directory / CARD).read_text(encoding="utf-8"))
        generator = safetensors.torch.load_file(str(directory / GENERATOR))
        second = directory / DISCRIMINATOR
        discriminator = safetensors.torch.load_file(str(second)) if second.exists() else None
        config = from_dict(ARCHITECTURES[card["architecture"]], card["config"])
        known = {key: card[key] for key in ("source", "sha256", "format", "licence")}
    except (OSError, KeyError, json.JSONDecodeError, safetensors.SafetensorError) as error:
        raise ConfigError(
            f"{directory}: not a directory made by jobs/import_weights.py ({error})"
        ) from None
    try:
        _check_match("generator", generator, _empty_generator(config).state_dict())
        if discriminator is not None:
            expected = _empty_discriminator(config).state_dict()
            _check_match("discriminator", discriminator, expected)
    except ValueError as error:
        raise ConfigError(f"{directory}: {error}") from None
    return ImportedGan(
        **known,
        config=config,
        generator=generator,
        discriminator=discriminator,
        notes=tuple(card.get("notes", ())),
    )


def _empty_generator(config: NetworkConfig) -> Generator:
    with torch.device("meta"):
        return build_generator(config)


def _empty_discriminator(config: NetworkConfig) -> Discriminator:
    with torch.device("meta"):
        return build_discriminator(config)


def _fitted_generator(tensors: Tensors, config: NetworkConfig) -> tuple[Tensors, tuple[str, ...]]:
    """Return the checked state dict, and what had to be filled in."""
    empty = _empty_generator(config)
    expected = empty.state_dict()
    mean = next(name for name in expected if name.endswith("mapping.w_avg"))
    given = mean in tensors
    # checked before the mapping runs, so that a bad file gets the message and not a crash
    filled = tensors if given else tensors | {mean: torch.zeros(config.w_dim)}
    fitted = _fitted("generator", filled, expected)
    if given:
        return fitted, ()
    generator = empty.to_empty(device="cpu")
    generator.load_state_dict(fitted)
    z = torch.randn(MEAN_LATENTS, config.z_dim, generator=rng.generator(0, "import", "mean latent"))
    with torch.no_grad():
        fitted[mean] = generator.mapping(z).mean(0)
    return fitted, (f"{mean}: mean of {MEAN_LATENTS} mapped latents; the file has none",)


def _fitted(part: str, tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    layouts.check_kernels(tensors)
    tensors = layouts.shaped_like(layouts.with_fir(tensors, expected), expected)
    _check_match(part, tensors, expected)
    return {name: tensors[name].detach().float().clone().contiguous() for name in expected}


def _check_match(part: str, tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> None:
    wrong = mismatch(tensors, expected)
    if wrong:
        raise ValueError(
            f"the {part} does not fit the sizes that its tensors tell; {wrong}. Models with labels "
            "or of another architecture cannot be imported"
        )
