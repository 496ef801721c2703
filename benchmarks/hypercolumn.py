"""What never building the hypercolumn buys: the first projector layer, both ways.

The maps have the channels and relative sizes of a ResNet-50 with stem stride 1 (256 to 2048
channels at a half to a sixteenth of the output). Every measurement has a process of its own, so
that peak memory is its own; features and weights are not counted. Backward means the gradients of
weight and bias, because the representation is frozen.

    python benchmarks/hypercolumn.py                        256 px, about three minutes, 4 GB
    python benchmarks/hypercolumn.py --px 128 --out 256     half a minute
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.nets.hypercolumn import HypercolumnConv2d, hypercolumn

CHANNELS = (256, 512, 1024, 2048)
SIDES = ("materialised", "factorised")
SECONDS = 5.0
"""A measurement is repeated for about this long; the fastest repetition counts."""


@dataclass(frozen=True)
class Measured:
    """One side of one case; ``error`` is relative to the materialised side."""

    seconds: float
    peak_mb: float
    error: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases, each side in a process of its own, and print a table."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--px", type=int, default=256, help="side of the output, a multiple of 16")
    flags.add_argument("--out", type=int, default=1024, help="output channels")
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = flags.parse_args(argv)
    if options.measure:
        side, kernel, backward, file = options.measure
        found = measure(side, int(kernel), options, backward=backward == "1", file=Path(file))
        print(json.dumps(vars(found)))
        return 0
    print(
        f"{sum(CHANNELS)} -> {options.out} channels at {options.px} px, {options.threads} threads"
    )
    print(
        f"{'case':<22}{'materialised':>20}{'factorised':>20}{'faster':>9}{'memory':>9}{'error':>10}"
    )
    for kernel in (1, 3):
        for backward in (False, True):
            print(row(kernel, options, backward=backward), flush=True)
    return 0


def row(kernel: int, options: argparse.Namespace, *, backward: bool) -> str:
    """Measure both sides of a case; return its line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result")
        plain, ours = (
            in_process(side, kernel, options, backward=backward, file=file) for side in SIDES
        )
    name = f"{kernel}x{kernel} forward{' + backward' if backward else ''}"
    sides = "".join(f"{side.seconds:9.2f} s{side.peak_mb:6.0f} MB" for side in (plain, ours))
    faster, memory = plain.seconds / ours.seconds, ours.peak_mb / plain.peak_mb
    return f"{name:<22}{sides}{faster:8.1f}x{memory:8.2f}x{ours.error:10.1e}"


def in_process(
    side: str, kernel: int, options: argparse.Namespace, *, backward: bool, file: Path
) -> Measured:
    """Measure one side in a new process.

    A process starts with its parent's peak memory as its own, so this one never loads a result.
    """
    sizes = [f"--px={options.px}", f"--out={options.out}", f"--threads={options.threads}"]
    case = ["--measure", side, str(kernel), str(int(backward)), str(file)]
    command = [sys.executable, __file__, *sizes, *case]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(**json.loads(finished.stdout))


def measure(
    side: str, kernel: int, options: argparse.Namespace, *, backward: bool, file: Path
) -> Measured:
    """Time one side in this process; ``file`` brings the materialised result to the other."""
    torch.set_num_threads(options.threads)
    size = (options.px, options.px)
    with rng.seeded(0, "benchmark"):
        layer = HypercolumnConv2d(CHANNELS, options.out, kernel=kernel, bias=True)
        levels = [
            torch.randn(1, count, options.px >> level, options.px >> level)
            for level, count in enumerate(CHANNELS, start=1)
        ]
    if side == "factorised":  # each side gets the memory format it would meet in use
        levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
    before, start, best = _peak_mb(), time.perf_counter(), float("inf")
    while best == float("inf") or time.perf_counter() - start < SECONDS:
        layer.zero_grad()
        began = time.perf_counter()
        with torch.set_grad_enabled(backward):
            if side == "factorised":
                out = layer(levels, size)
            else:
                stacked = hypercolumn(levels, size)
                out = F.conv2d(stacked, layer.weight, layer.bias, padding=kernel // 2)
            if backward:
                out.backward(torch.ones_like(out))
        best = min(best, time.perf_counter() - began)
    peak = _peak_mb() - before
    result = layer.weight.grad if backward else out.detach()
    assert result is not None
    if side == "materialised":
        torch.save(result, file)
    expected = torch.load(file)
    return Measured(best, peak, float((result - expected).abs().max() / expected.abs().max()))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
