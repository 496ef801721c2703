"""What a step of gradient matching costs by matched block, beside LAGM's tables 2 and C.8.

A step updates the annotator and the segmentor once. Times are relative to the paper's default, the
head of DeepLabV3 and all of the U-Net; ``output`` is the last, linear layer, in closed form. All
blocks in one process, in turns, the fastest step counts; memory is what the largest of three steps
adds to a process of its own (on a GPU: the peak allocated).

    python benchmarks/matching.py                              thin DeepLab and small U-Net, 64 px
    python benchmarks/matching.py --large --device cuda        ResNet-101 and the papers' U-Net, 256
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raysweep import rng
from raysweep.config import override
from raysweep.fewshot.gradient_matching import GradientMatching
from raysweep.fewshot.matching_config import Labelled, MatchingConfig
from raysweep.fewshot.matching_inputs import matching_batch
from raysweep.fewshot.segmentors import SegmentorConfig
from raysweep.nets.fpn import FpnConfig
from raysweep.nets.gans import build_generator
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.nets.unet import UnetConfig

CLASSES = 8
TABLE_2: dict[str, float | None] = {
    "output": None,
    "head": 1.0,
    "res5+head": 1.62,
    "res4..5+head": 3.08,
    "res3..5+head": 3.28,
    "res2..5+head": 3.34,
    "all": 3.34,
}
TABLE_C8: dict[str, float | None] = {
    "output": 0.34,
    "u2": 0.63,
    "up": 0.65,
    "u1": 0.71,
    "down": 0.73,
    "input": 0.73,
    "all": 1.0,
}


@dataclass(frozen=True)
class Bench:
    """A segmentor and a generator.

    Attributes:
        config: of the learner; its block is replaced.
        gan: sizes of the generator.
        paper: relative times by block.
        unit: the block whose time is 1.
        device: where it runs.
        seconds: a table is measured for about this long.
    """

    config: MatchingConfig
    gan: StyleGan2Config
    paper: dict[str, float | None]
    unit: str
    device: str
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each segmentor."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--large", action="store_true", help="the papers' networks at 256 px")
    flags.add_argument("--batch", type=int, default=2, help="labelled and generated images")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--seconds", type=float, default=60.0, help="for each table")
    options = flags.parse_args(argv)
    torch.set_num_threads(options.threads)
    for network in ("deeplab", "unet"):
        print_table(bench(network, options))
    return 0


def bench(network: str, options: argparse.Namespace) -> Bench:
    """Return what is measured for ``deeplab`` or ``unet``."""
    large: bool = options.large
    gan = StyleGan2Config(resolution=64, z_dim=64, w_dim=64, channel_base=1024, channel_max=64)
    gan = StyleGan2Config(resolution=256) if large else gan
    deeplab = SegmentorConfig(network="deeplab_resnet101" if large else "deeplab_thin")
    unet = SegmentorConfig(
        network="unet", unet=UnetConfig() if large else UnetConfig(widths=(16, 32, 64, 128, 128))
    )
    config = MatchingConfig(
        segmentor=deeplab if network == "deeplab" else unet,
        annotator=FpnConfig(width=128 if large else 32),
        block="all",
        labelled_batch=options.batch,
        generated_batch=options.batch,
    )
    paper, unit = (TABLE_2, "head") if network == "deeplab" else (TABLE_C8, "all")
    return Bench(config, gan, paper, unit, options.device, options.seconds)


def build(case: Bench, block: str) -> tuple[GradientMatching, Labelled]:
    """Return a learner and its labelled set, random images."""
    stream, px = rng.generator(0, "benchmark"), case.gan.resolution
    images = torch.randint(0, 256, (16, 3, px, px), generator=stream).byte()
    masks = torch.randint(0, CLASSES, (16, px, px), generator=stream).byte()
    with rng.seeded(0, "generator"):
        generator = build_generator(case.gan)
    labelled = Labelled(images, masks)
    learner = GradientMatching(
        override(case.config, {"block": block}),
        generator=generator,
        labelled=labelled,
        num_classes=CLASSES,
        device=case.device,
    )
    return learner, labelled


def step(learner: GradientMatching, labelled: Labelled) -> float:
    """Take a step; return its seconds."""
    batch = matching_batch(labelled, step=learner.steps_taken, config=learner.config)
    began = time.perf_counter()
    learner.step(batch)
    if learner.device.type == "cuda":
        torch.cuda.synchronize(learner.device)
    return time.perf_counter() - began


def times(case: Bench) -> dict[str, float]:
    """Return the seconds of the fastest step by block; all take turns."""
    learners = {block: build(case, block) for block in case.paper}
    best = dict.fromkeys(learners, float("inf"))
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < case.seconds:
        for block, (learner, labelled) in learners.items():
            best[block] = min(best[block], step(learner, labelled))
        rounds += 1
    return best


def peak(case: Bench, block: str, threads: int) -> float:
    """Return the MiB that three steps add; to be called in a fresh process."""
    torch.set_num_threads(threads)
    learner, labelled = build(case, block)
    cuda = learner.device.type == "cuda"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step(learner, labelled)
    if cuda:
        return torch.cuda.max_memory_allocated(learner.device) / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def print_table(case: Bench) -> None:
    """Measure a segmentor and print one line for each block."""
    best = times(case)
    cases = [(case, block, torch.get_num_threads()) for block in case.paper]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raysweep.fewshot.gradient_matching"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        measured = pool.starmap(peak, cases, chunksize=1)
    memory = dict(zip(best, measured, strict=True))
    config, unit = case.config, best[case.unit]
    print(
        f"{config.segmentor.network}, {case.gan.resolution} px, batch {config.labelled_batch} + "
        f"{config.generated_batch}, {case.device}, {torch.get_num_threads()} threads"
    )
    print(f"{'block':<14}{'step':>12}{'relative':>10}{'paper':>8}{'memory':>12}")
    for block, paper in case.paper.items():
        printed = "-" if paper is None else f"{paper:.2f}x"
        line = f"{block:<14}{1e3 * best[block]:9.1f} ms{best[block] / unit:9.2f}x{printed:>8}"
        print(f"{line}{memory[block]:8.0f} MiB", flush=True)
    print()


if __name__ == "__main__":
    sys.exit(main())
