"""What one image costs in a network, read off its shapes: operations, memory, largest map.

Networks are built on the ``meta`` device: nothing is computed and nothing is allocated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from raysweep.distill.student_config import StudentConfig, build_student
from raysweep.fewshot.segmentors import SegmentorConfig, build_segmentor
from raysweep.nets.fpn import Fpn, FpnConfig
from raysweep.nets.gans import NetworkConfig, build_discriminator, build_generator
from raysweep.nets.pixel_mlps import PixelMlp
from raysweep.nets.projectors import ProjectorConfig, build_projector
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.nets.stylegan1 import StyleGan1Config

Levels = tuple[tuple[int, int], ...]
"""Channels and side of each map that a projector stands on."""


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        gflop: floating point operations of a forward pass, in thousands of millions.
        kept: numbers that are kept for the backward pass, weights apart.
        largest: numbers of the largest map.
        weights: numbers that are learnt.
    """

    gflop: float = 0.0
    kept: float = 0.0
    largest: float = 0.0
    weights: float = 0.0


@functools.cache
def trunk_cost(config: TrunkConfig, px: int, stem_stride: Literal[1, 2]) -> Cost:
    """Return the cost of a trunk at an input of so many pixels."""
    with torch.device("meta"):
        trunk = build_trunk(config)
        trunk.set_stem_stride(stem_stride)
        return _cost(trunk, lambda: trunk.stages(torch.empty(1, 3, px, px)))


@functools.cache
def student_cost(config: StudentConfig, classes: int) -> Cost:
    """Return the cost of a student."""
    px = config.resolution
    with torch.device("meta"):
        student = build_student(config, classes)
        return _cost(student, lambda: student(torch.empty(1, 3, px, px)))


@functools.cache
def generator_cost(config: NetworkConfig) -> Cost:
    """Return the cost of a generator."""
    with torch.device("meta"):
        generator = build_generator(config)
        return _cost(generator, lambda: generator(torch.empty(1, config.z_dim)))


@functools.cache
def discriminator_cost(config: NetworkConfig) -> Cost:
    """Return the cost of a discriminator."""
    side = config.resolution
    with torch.device("meta"):
        discriminator = build_discriminator(config)
        return _cost(discriminator, lambda: discriminator(torch.empty(1, 3, side, side)))


@functools.cache
def projector_cost(config: ProjectorConfig, levels: Levels, px: int, classes: int) -> Cost:
    """Return the cost of a projector on maps of these sizes."""
    with torch.device("meta"):
        projector = build_projector(config, [channels for channels, _ in levels], classes)
        maps = _maps(levels)
        return _cost(projector, lambda: projector(maps, px))


@functools.cache
def pixel_mlp_cost(widths: tuple[int, ...], levels: Levels, px: int, classes: int) -> Cost:
    """Return the cost of labelling an image with one pixel classifier of an ensemble."""
    with torch.device("meta"):
        member = PixelMlp([channels for channels, _ in levels], widths, classes)
        maps = _maps(levels)
        return _cost(member, lambda: member(maps, px))


@functools.cache
def annotator_cost(config: FpnConfig, levels: Levels, classes: int) -> Cost:
    """Return the cost of gradient matching's annotator."""
    with torch.device("meta"):
        annotator = Fpn(config, [channels for channels, _ in levels], classes)
        maps = _maps(levels)
        return _cost(annotator, lambda: annotator(maps, levels[0][1]))


@functools.cache
def segmentor_cost(config: SegmentorConfig, px: int, classes: int) -> Cost:
    """Return the cost of gradient matching's segmentor."""
    with torch.device("meta"):
        segmentor = build_segmentor(config, classes, trunk=None)
        return _cost(segmentor, lambda: segmentor(torch.empty(1, 3, px, px)))


@functools.cache
def trunk_levels(config: TrunkConfig, px: int) -> Levels:
    """Return the maps of a trunk whose stem has stride 1."""
    with torch.device("meta"):
        trunk = build_trunk(config).eval()
        trunk.set_stem_stride(1)
        maps = trunk.stages(torch.empty(1, 3, px, px))
    return tuple((level.shape[1], level.shape[2]) for level in maps)


def generator_levels(config: NetworkConfig, layers: Sequence[str] | None) -> Levels:
    """Return the maps of a generator: those of the named layers, else two per resolution."""
    every = [(config.channels(side), side) for side in config.resolutions[::-1] for _ in range(2)]
    if not isinstance(config, StyleGan1Config):
        every = every[:-1]  # the block of 4 px has one convolution
    return tuple(every if layers is None else every[: len(layers)])


def size_of(levels: Levels) -> int:
    """Return how many numbers the maps of one image are."""
    return sum(channels * side**2 for channels, side in levels)


def _maps(levels: Levels) -> list[torch.Tensor]:
    return [torch.empty(1, channels, side, side) for channels, side in levels]


def _cost(network: nn.Module, run: Callable[[], Any]) -> Cost:
    network.eval()  # a single image has no batch statistics everywhere
    weights = sum(parameter.numel() for parameter in network.parameters())
    kept, sizes = _Kept(network), _Sizes()  # type: ignore[no-untyped-call]
    hooks = torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, sizes, hooks:
        run()
    return Cost(counter.get_total_flops() / 1e9, kept.total, sizes.largest, weights)


@dataclass
class _Kept:
    """Adds up the tensors that autograd keeps, each storage once."""

    network: nn.Module
    total: float = 0.0
    seen: dict[int, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = [*self.network.parameters(), *self.network.buffers()]
        self.seen = {tensor.untyped_storage()._cdata: tensor for tensor in tensors}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in self.seen:
            self.seen[storage] = tensor  # holding it keeps the storage's number its own
            self.total += tensor.numel()
        return tensor


class _Sizes(TorchDispatchMode):
    """Notes the largest tensor that an operation returns."""

    largest = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, float(leaf.numel()))
        return found
