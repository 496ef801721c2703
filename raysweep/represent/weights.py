"""Trunk weights from local files: published checkpoints and this project's own.

Nothing is unpickled beyond tensors and plain containers.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.nets.resnet import Trunk, TrunkConfig, build_trunk

Tensors = dict[str, torch.Tensor]

CONFIG_KEY = "trunk"
"""Entry of the safetensors header that holds the trunk's config."""

SHOWN = 4
"""Names listed per kind of mismatch."""


@dataclass(frozen=True)
class Layout:
    """Where a published format keeps the trunk.

    Attributes:
        name: how error messages call it.
        outer: key of the tensors in the file; empty when the file is the tensors.
        prefix: of the trunk's tensors.
        dropped: prefixes of tensors that belong to pretraining or to a classifier.
    """

    name: str
    outer: str
    prefix: str
    dropped: tuple[str, ...]


LAYOUTS = (
    Layout(
        name="MoCo v1 or v2 (facebookresearch/moco)",
        outer="state_dict",
        prefix="module.encoder_q.",
        dropped=("module.encoder_q.fc.", "module.encoder_k.", "module.queue"),
    ),
    Layout(
        name="SimSiam (facebookresearch/simsiam)",
        outer="state_dict",
        prefix="module.encoder.",
        dropped=("module.encoder.fc.", "module.predictor."),
    ),
    Layout(
        name="PyContrast (HobbitLong/PyContrast), as GanOrCon's backbones",
        outer="model",
        prefix="module.encoder.",
        dropped=("module.encoder.fc.", "module.head"),
    ),
    Layout(name="torchvision", outer="", prefix="", dropped=("fc.",)),
)


def load_trunk(path: Path | str, config: TrunkConfig) -> Trunk:
    """Return a trunk with the weights of a local checkpoint.

    Known layouts: :data:`LAYOUTS`; ``.safetensors`` files hold torchvision's names. Every tensor
    of the trunk must be there and none may be left over, with one exception: the step counters of
    batch norm (``num_batches_tracked``), which files from before torch 0.4.1 lack, stay 0.

    Args:
        path: the file.
        config: the architecture it holds.

    Returns:
        The trunk in eval mode, on the CPU.

    Raises:
        ValueError: the file is unreadable, has no known layout, or holds another architecture.
    """
    path = Path(path)
    tensors = _trunk_tensors(read_contents(path), path)
    trunk = build_trunk(config)
    expected = trunk.state_dict()
    counters = {name: t for name, t in expected.items() if name.endswith("num_batches_tracked")}
    tensors = counters | tensors
    wrong = mismatch(tensors, expected)
    if wrong:
        raise ConfigError(
            f"{path} does not fit trunk {config.name!r}; {wrong}. Choose the trunk that the file "
            "was trained with"
        )
    trunk.load_state_dict(tensors)
    return trunk.eval()


def save_trunk(trunk: Trunk, path: Path | str) -> None:
    """Write a trunk and its config as one safetensors file."""
    tensors = {name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}
    header = {CONFIG_KEY: json.dumps(to_dict(trunk.config))}
    safetensors.torch.save_file(tensors, str(path), metadata=header)


def read_trunk(path: Path | str) -> Trunk:
    """Return the trunk of a file made by :func:`save_trunk`, in eval mode on the CPU.

    Raises:
        ValueError: the file is unreadable, holds no trunk, or its tensors do not fit its config.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ConfigError(f"{path}: not a safetensors file ({error})") from None
    if CONFIG_KEY not in header:
        raise ConfigError(f"{path}: holds no trunk config; published weights go to load_trunk")
    return load_trunk(path, from_dict(TrunkConfig, json.loads(header[CONFIG_KEY])))


def read_contents(path: Path) -> dict[str, Any]:
    """Return what a weights file holds, without running anything from it.

    Raises:
        ConfigError: it cannot be read, or holds more than tensors and plain data.
    """
    if path.suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(str(path)))
        except safetensors.SafetensorError as error:
            raise ConfigError(f"{path}: not a safetensors file ({error})") from None
    try:
        # PyContrast keeps its command line beside the weights: a Namespace is plain data
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"{path}: cannot be read as tensors alone ({error}); save its state dict with "
            "torch.save or safetensors in an environment that trusts the file"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    return content


def _trunk_tensors(content: dict[str, Any], path: Path) -> Tensors:
    for layout in LAYOUTS:
        tensors = content.get(layout.outer) if layout.outer else content
        if not isinstance(tensors, dict) or f"{layout.prefix}conv1.weight" not in tensors:
            continue
        kept = {name: t for name, t in tensors.items() if not name.startswith(layout.dropped)}
        return {name.removeprefix(layout.prefix): t for name, t in kept.items()}
    known = "; ".join(layout.name for layout in LAYOUTS)
    raise ConfigError(f"{path}: no known layout; has {_some(list(content))}; known are {known}")


def mismatch(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> str:
    """Say what keeps tensors from being loaded where others are expected, by name; "" if nothing.

    Tensors may be missing, left over, of another shape, or hold NaN or infinity.

    Args:
        tensors: name to tensor.
        expected: name to a tensor of the right shape, on any device.
    """
    both = [name for name in expected if name in tensors]
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "left over": sorted(tensors.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in both
            if tensors[name].shape != expected[name].shape
        ],
        "not finite": [name for name in both if not tensors[name].isfinite().all()],
    }
    found = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    return "; ".join(found)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
