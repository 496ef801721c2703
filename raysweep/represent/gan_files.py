"""Reads the files of foreign GAN checkpoints as tensors and finds their layout."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import CLAMP, StyleGan2Config
from raysweep.represent import gan_layouts as layouts
from raysweep.represent.gan_layouts import Tensors
from raysweep.represent.restricted_pickle import OfficialNetwork, read_official_pickle

Format = Literal["stylegan2-ada", "rosinality", "stylegan1-port"]

KNOWN = (
    "the .pkl of StyleGAN2-ADA (G, D, G_ema), the .pt of rosinality's stylegan2-pytorch (g, d, "
    "g_ema, latent_avg), the .pt of the StyleGAN port that DatasetGAN and LAGM load"
)


@dataclass(frozen=True)
class RawGan:
    """Tensors in the names of ``nets``, not yet checked for completeness.

    Attributes:
        format: layout of the file.
        config: sizes, read off the tensors.
        generator: the averaged one where there are two.
        discriminator: if there is one.
    """

    format: Format
    config: StyleGan1Config | StyleGan2Config
    generator: Tensors
    discriminator: Tensors | None


def read_gan(path: Path) -> RawGan:
    """Return the networks of a file.

    Raises:
        ValueError: the file is unreadable, asks to run code or has no known layout.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return _from_pickle(path) if path.suffix == ".pkl" else _from_torch(path)


def _from_pickle(path: Path) -> RawGan:
    networks = read_official_pickle(path)
    generator = networks.get("G_ema") or networks.get("G")
    if generator is None:
        raise ValueError(f"{path}: holds no generator (G_ema or G)")
    discriminator = networks.get("D")
    try:
        config = layouts.stylegan2_config(
            generator.tensors,
            mbstd_group=_mbstd_group(discriminator),
            half_blocks=_half_blocks(generator),
        )
    except ValueError as error:
        raise ValueError(
            f"{path}: {generator.class_name} {error}; only StyleGAN2 can be imported"
        ) from None
    return RawGan(
        format="stylegan2-ada",
        config=config,
        generator=generator.tensors,
        discriminator=None if discriminator is None else discriminator.tensors,
    )


def _half_blocks(generator: OfficialNetwork) -> int:
    """Return how many blocks run in half precision, which goes with clamped activations."""
    mapping = _options(generator, "mapping_kwargs")
    multiplier = mapping.get("lr_multiplier", 0.01)
    if multiplier != 0.01:
        raise ValueError(f"has mapping lr_multiplier = {multiplier!r}; expected 0.01")
    options = _options(generator, "synthesis_kwargs")
    half, limit = options.get("num_fp16_res", 0), options.get("conv_clamp")
    if type(half) is not int or (limit is not None) != (half > 0) or limit not in (None, CLAMP):
        raise ValueError(
            f"has num_fp16_res = {half!r} with conv_clamp = {limit!r}; expected 0 with None or "
            f"a positive number with {CLAMP:.0f}"
        )
    return half


def _mbstd_group(discriminator: OfficialNetwork | None) -> int:
    options = {} if discriminator is None else _options(discriminator, "epilogue_kwargs")
    group = options.get("mbstd_group_size", 4)
    if type(group) is not int or options.get("mbstd_num_channels", 1) != 1:
        raise ValueError(
            f"has mbstd_group_size = {group!r} with mbstd_num_channels = "
            f"{options.get('mbstd_num_channels', 1)!r}; expected a number with 1"
        )
    return group


def _options(network: OfficialNetwork, name: str) -> dict[str, Any]:
    options = network.init_kwargs.get(name, {})
    return options if isinstance(options, dict) else {}


def _from_torch(path: Path) -> RawGan:
    content = _load(path)
    for name in ("g_ema", "g"):
        tensors = _state_dict(content.get(name))
        if "input.input" in tensors:
            return _rosinality(content, tensors)
    for candidate in (content, *content.values()):
        tensors = _state_dict(candidate)
        if layouts.is_port(tensors):
            generator = layouts.from_port(tensors)
            config = layouts.stylegan1_config(generator)
            return RawGan("stylegan1-port", config, generator, None)
    shown = ", ".join(map(str, list(content)[:6]))
    raise ValueError(f"{path}: no known layout; has {shown}; known are {KNOWN}")


def _rosinality(content: dict[str, Any], tensors: Tensors) -> RawGan:
    generator = layouts.from_rosinality(tensors, network="generator")
    mean = content.get("latent_avg")
    if isinstance(mean, torch.Tensor):
        generator["mapping.w_avg"] = mean
    second = _state_dict(content.get("d"))
    return RawGan(
        format="rosinality",
        config=layouts.stylegan2_config(generator),
        generator=generator,
        discriminator=layouts.from_rosinality(second, network="discriminator") if second else None,
    )


def _state_dict(value: Any) -> Tensors:
    """Return the tensors of a state dict without the prefix of data-parallel training."""
    if not isinstance(value, dict):
        return {}
    return {
        str(name).removeprefix("module."): tensor
        for name, tensor in value.items()
        if isinstance(tensor, torch.Tensor)
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        # rosinality keeps its command line beside the weights: a Namespace is plain data
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file leads the reader to
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: cannot be read as tensors alone ({reason}); nothing in it was run. Known "
            f"are {KNOWN}"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    return content
