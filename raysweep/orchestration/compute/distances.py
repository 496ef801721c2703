"""Distances between images in the features of a frozen network read from a local file."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional as F

from raysweep.config import ConfigError
from raysweep.data.augment import standardise
from raysweep.fewshot.image_distance import Distance, feature_distance, pixel_pyramid
from raysweep.fewshot.projection_config import ProjectionConfig
from raysweep.nets.resnet import Trunk
from raysweep.represent.weights import read_contents, read_trunk

Tensors = dict[str, torch.Tensor]

VGG_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Places of VGG16's convolutions in torchvision's ``features``; blocks are parted by pooling."""
VGG_WIDTHS = (64, 128, 256, 512, 512)
LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)
PACKAGE_NAME = re.compile(r"net\.slice\d\.")
SHOWN = 3


def image_distance(config: ProjectionConfig, *, device: torch.device | str) -> Distance:
    """Return the distance that a search minimises, between images in [-1, 1] of 16 px or more.

    Networks are frozen; gradients flow through them to the images.

    Args:
        config: which distance.
        device: where its network is to live.

    Raises:
        ConfigError: the file of weights does not fit the distance.
    """
    if config.distance == "pixels":
        return pixel_pyramid
    path = Path(str(config.weights))
    if not path.is_file():
        raise ConfigError(f"project.weights = {str(path)!r} is not a file; give a local one")
    if config.distance == "trunk":
        return trunk_distance(_frozen_trunk(path).to(device))
    tensors = read_lpips(path)
    return lpips_distance({name: tensor.to(device) for name, tensor in tensors.items()})


def check_distance(config: ProjectionConfig, *, content: str) -> None:
    """Check that the distance can be made; a file is read once per process.

    Args:
        config: which distance.
        content: hash of the file of weights.

    Raises:
        ConfigError: as for :func:`image_distance`.
    """
    _checked(config.distance, config.weights, content)


@lru_cache
def _checked(distance: str, weights: str | None, _content: str) -> None:
    config = ProjectionConfig.model_validate({"distance": distance, "weights": weights})
    image_distance(config, device="cpu")


def trunk_distance(trunk: Trunk) -> Distance:
    """Return the distance in conv2_x to conv5_x of a frozen trunk, all channels weighing the same.

    Args:
        trunk: in eval mode, frozen.
    """
    return feature_distance(lambda images: trunk.stages(standardise((images + 1) / 2)))


def lpips_distance(tensors: Tensors) -> Distance:
    """Return LPIPS in VGG16 (Zhang et al. 2018, 1801.03924): relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Args:
        tensors: what :func:`read_lpips` returns.
    """
    levels = range(len(VGG_BLOCKS))
    return feature_distance(
        vgg_taps(tensors), weights=[tensors[f"lin{level}"].flatten() for level in levels]
    )


def vgg_taps(tensors: Tensors) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """Return the function from images in [-1, 1] to the last ReLU of each block of VGG16.

    Args:
        tensors: ``features.<place>.weight`` and ``.bias`` of the convolutions.
    """
    like = tensors["features.0.weight"]
    shift, scale = (like.new_tensor(value)[:, None, None] for value in (LPIPS_SHIFT, LPIPS_SCALE))

    def taps(images: torch.Tensor) -> list[torch.Tensor]:
        x, found = (images - shift) / scale, []
        for level, block in enumerate(VGG_BLOCKS):
            x = F.max_pool2d(x, 2) if level else x
            for place in block:
                weight, bias = (tensors[f"features.{place}.{part}"] for part in ("weight", "bias"))
                x = F.conv2d(x, weight, bias, padding=1).relu()
            found.append(x)
        return found

    return taps


def read_lpips(path: Path | str) -> Tensors:
    """Return the tensors of VGG16's convolutions, and ``lin0`` to ``lin4``, from a local file.

    Args:
        path: safetensors, or a state dict that ``torch.save`` wrote; the names are torchvision's
            with those of the published linear weights, or those of the package lpips.

    Raises:
        ConfigError: the file cannot be read, or a tensor is missing or of another shape.
    """
    named: Tensors = {}
    for name, tensor in _tensors(Path(path)).items():
        name = PACKAGE_NAME.sub("features.", name)
        name = re.sub(r"^lin(\d)\.model\.1\.weight$", r"lin\1", name)
        named[name] = tensor
    expected = _lpips_shapes()
    wrong = [
        f"{name} is {tuple(named[name].shape) if name in named else 'missing'}, needed {shape}"
        for name, shape in expected.items()
        if name not in named or tuple(named[name].shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ConfigError(
            f"{path}: no LPIPS with VGG16: {'; '.join(wrong[:SHOWN])}{more}; the file must hold "
            "VGG16's convolutions and the linear weights"
        )
    return {name: named[name].detach().float() for name in expected}


def _lpips_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for level, (block, width) in enumerate(zip(VGG_BLOCKS, VGG_WIDTHS, strict=True)):
        for place in block:
            shapes[f"features.{place}.weight"] = (width, inputs, 3, 3)
            shapes[f"features.{place}.bias"] = (width,)
            inputs = width
        shapes[f"lin{level}"] = (1, width, 1, 1)
    return shapes


def _tensors(path: Path) -> Tensors:
    content = read_contents(path)
    return {name: t for name, t in content.items() if isinstance(t, torch.Tensor)}


def _frozen_trunk(path: Path) -> Trunk:
    trunk = read_trunk(path).eval().requires_grad_(False)
    trunk.set_stem_stride(1)  # the maps that projectors stand on
    return trunk
