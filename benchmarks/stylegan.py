"""What StyleGAN2 costs: seconds per kimg by phase, and the modulated convolution three ways.

A phase's seconds are those of its updates in a thousand images, at the interval of its lazy
regularisation; `--small` trains the demo preset's network, else the 256 px one of the paper.

``scaled`` scales activations around one convolution shared by the samples; ``grouped`` makes one
grouped convolution of each sample's own weights; ``loop`` makes one convolution after the other.
Forward and backward to activations, weights and styles; all three in one process, in turns.

    python benchmarks/stylegan.py                   layers of the 256 px paper network, batch 4
    python benchmarks/stylegan.py --small           those of a 32 px network, batch 32
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from raysweep import presets, rng
from raysweep.config import override
from raysweep.nets.fir import fir_kernel
from raysweep.nets.modulated import modulated_conv2d
from raysweep.paper_presets import stylegan2_ada
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan import Gan

SECONDS = 6.0
"""A case is repeated for about this long; the fastest repetition of each way counts."""


@dataclass(frozen=True)
class Case:
    """A layer: ``side`` is that of its input."""

    batch: int
    wide: int
    out: int
    side: int
    up: bool


PAPER = (
    Case(4, 512, 512, 8, up=False),
    Case(4, 512, 512, 16, up=True),
    Case(4, 512, 512, 32, up=False),
    Case(4, 256, 128, 64, up=True),
    Case(4, 128, 128, 128, up=False),
)
SMALL = (
    Case(32, 64, 64, 8, up=False),
    Case(32, 64, 32, 8, up=True),
    Case(32, 32, 32, 16, up=False),
    Case(32, 32, 16, 16, up=True),
    Case(32, 16, 16, 32, up=False),
)

Convolution = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor
]


def scaled(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, up: torch.Tensor | None
) -> torch.Tensor:
    """Scale activations around one shared convolution."""
    return modulated_conv2d(x, weight, style, up=up, method="scaled")


def grouped(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, up: torch.Tensor | None
) -> torch.Tensor:
    """Make one grouped convolution of each sample's weights."""
    return modulated_conv2d(x, weight, style, up=up, method="grouped")


def loop(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, up: torch.Tensor | None
) -> torch.Tensor:
    """Take the samples one by one."""
    samples = zip(x.split(1), style.split(1), strict=True)
    return torch.cat([grouped(image, weight, own, up) for image, own in samples])


# each with the memory format that suits it
WAYS: dict[str, tuple[Convolution, torch.memory_format]] = {
    "scaled": (scaled, torch.channels_last),
    "grouped": (grouped, torch.contiguous_format),
    "loop": (loop, torch.contiguous_format),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of the modulated convolution."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--small", action="store_true", help="layers of a 32 px network")
    flags.add_argument("--threads", type=int, default=2)
    options = flags.parse_args(argv)
    torch.set_num_threads(options.threads)
    print_phases(demo() if options.small else paper())
    print_convolutions(SMALL if options.small else PAPER)
    return 0


def demo() -> RepresentConfig:
    """Return the demo preset's generator with path length, which the preset leaves out."""
    return override(presets.demo().pretrain, {"method": "stylegan2", "gan.path_weight": 2.0})


def paper() -> RepresentConfig:
    """Return the official configuration at 256 px, a small batch."""
    gan = stylegan2_ada("paper256")
    full = gan.model_copy(update={"batch": 8, "network": override(gan.network, {"half_blocks": 0})})
    return RepresentConfig(method="stylegan2", gan=full)


def print_phases(config: RepresentConfig) -> None:
    """Measure every phase, the augmentation at p = 0.5 included, and print one line for each."""
    gan, px = config.gan, config.network.resolution
    config = override(config, {"gan.ada.enabled": True, "gan.ada.initial_p": 0.5})
    learner = Gan(config, device="cpu")
    images = torch.rand((gan.batch, 3, px, px), generator=rng.generator(0, "images")) * 2 - 1
    print(f"seconds per kimg at {px} px, batch {gan.batch}, augmentation at p = 0.5")
    total = 0.0
    for phase in learner.phases:
        fastest, start = float("inf"), time.perf_counter()
        while fastest == float("inf") or time.perf_counter() - start < SECONDS:
            began = time.perf_counter()
            learner.update(phase, images)
            fastest = min(fastest, time.perf_counter() - began)
        seconds = fastest / phase.interval * 1000 / gan.batch
        total += seconds
        print(f"{phase.name:<15}{seconds:10.2f} s   every {phase.interval}", flush=True)
    print(f"{'together':<15}{total:10.2f} s   {1000 / total:.0f} images/s\n")


def print_convolutions(cases: Sequence[Case]) -> None:
    """Measure every case and print one line for each; ratios are to ``scaled``."""
    print(f"modulated convolution, forward + backward, {torch.get_num_threads()} threads")
    print(f"{'case':<30}" + "".join(f"{way:>20}" for way in WAYS) + f"{'error':>10}")
    for case in cases:
        best, error = measure(case)
        name = f"{case.batch} x {case.wide} -> {case.out}, {case.side} px{' up' if case.up else ''}"
        columns = [f"{1e3 * s:9.1f} ms{s / best['scaled']:7.2f}x" for s in best.values()]
        print(f"{name:<30}" + "".join(f"{c:>20}" for c in columns) + f"{error:10.1e}", flush=True)


def measure(case: Case) -> tuple[dict[str, float], float]:
    """Return the seconds of each way, and how far their results differ (relative)."""
    best = dict.fromkeys(WAYS, float("inf"))
    results: dict[str, torch.Tensor] = {}
    start = time.perf_counter()
    while not results or time.perf_counter() - start < SECONDS:
        for way in WAYS:
            seconds, results[way] = once(way, case)
            best[way] = min(best[way], seconds)
    largest = results["loop"].abs().max()
    error = max(
        float((result - results["loop"]).abs().max() / largest) for result in results.values()
    )
    return best, error


def once(way: str, case: Case) -> tuple[float, torch.Tensor]:
    """Run a way once; return its seconds and the gradient of the weights."""
    convolution, layout = WAYS[way]
    generator = rng.generator(0, "benchmark")
    image, kernel = (case.batch, case.wide, case.side, case.side), (case.out, case.wide, 3, 3)
    x, weight, style = (
        torch.randn(shape, generator=generator) for shape in (image, kernel, image[:2])
    )
    x = x.contiguous(memory_format=layout)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, style)]
    began = time.perf_counter()
    out = convolution(x, weight, style, fir_kernel() if case.up else None)
    gradients = torch.autograd.grad(out, leaves, torch.ones_like(out))
    return time.perf_counter() - began, gradients[1]


if __name__ == "__main__":
    sys.exit(main())
