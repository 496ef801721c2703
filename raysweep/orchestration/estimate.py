"""How long, how much memory and how much disk a plan will take, before anything starts.

Work is counted in floating point operations of trunk and projector plus a fixed cost per image
(decoding, augmenting, launching kernels). The constants come from runs of this code on one core
of a small cloud CPU; where the same store holds finished stages, what they took corrects them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysweep.data.records import Split
from raysweep.distill.student_config import StudentConfig, build_student, total_steps
from raysweep.experiment import Experiment
from raysweep.fewshot.projector import candidate_steps
from raysweep.nets.gans import NetworkConfig, build_discriminator, build_generator
from raysweep.nets.projectors import ProjectorConfig, build_projector
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan_weights import imported_config

if TYPE_CHECKING:
    from raysweep.orchestration.plan import Trial
    from raysweep.orchestration.stages import StageStore

GFLOP_PER_SECOND = {
    "pretrain": 88.0,
    "project": 15.0,
    "fit": 50.0,
    "label": 50.0,
    "distill": 50.0,
    "evaluate": 50.0,
}
SECONDS_PER_IMAGE = {
    "pretrain": 3.5e-4,
    "project": 0.0,
    "fit": 5e-4,
    "label": 3e-3,
    "distill": 1e-3,
    "evaluate": 1e-3,
}
GAN_SLOWER = 1.7  # many small convolutions, far from the speed of a trunk's
PROCESS_GIB = 0.8
Levels = tuple[tuple[int, int], ...]
"""Channels and side of each map that a projector stands on."""
NAMES = ("pretrain", "project", "fit", "label", "distill", "evaluate")


@dataclass(frozen=True)
class Work:
    """Operations and images of one stage."""

    gflop: float
    images: int

    def seconds(self, name: str) -> float:
        """Return the time on a core of the kind that the constants were measured on."""
        return self.gflop / GFLOP_PER_SECOND[name] + self.images * SECONDS_PER_IMAGE[name]


def work_of(experiment: Experiment, counts: Mapping[Split, int]) -> dict[str, Work]:
    """Return the work of each kind of stage on a dataset with that many images.

    All projections of an experiment count together.
    """
    represent, fit = experiment.pretrain, experiment.fit
    seen, scored = fit.steps * fit.batch, scored_images(experiment, counts)
    generator, discriminator, features = 0.0, 0.0, 0.0
    levels: Levels = ((3, fit.resolution),)
    if represent.generative:
        network = network_of(represent)
        generator, discriminator = _gan_gflop(network)
        levels, features = _generator_levels(network), generator
    elif represent.method != "rgb":
        widths = build_trunk(represent.trunk).channels
        levels = tuple((width, max(1, fit.resolution >> at)) for at, width in enumerate(widths))
        features = _trunk_gflop(represent.trunk, fit.resolution, 1)
    projector = _projector_gflop(fit.projector, levels, fit.resolution)
    searched = experiment.data.shots
    labelled = experiment.label.images
    if experiment.label.source == "unlabelled":
        labelled = min(labelled, counts.get("unlabelled", 0) or counts.get("train", 0))
    learnt = _student_images(experiment.student, labelled)
    model = student = _student_gflop(experiment.student)
    if not experiment.distilled:
        searched += counts.get("val", 0) + counts.get("test", 0)
        model = features + projector
    return {
        "pretrain": _pretraining(represent, generator, discriminator),
        "project": Work(3 * generator * experiment.project.steps * searched, searched),
        "fit": Work((features + 3 * projector) * seen, seen),
        "label": Work((features + projector) * labelled, labelled),
        "distill": Work(3 * student * learnt, learnt),
        "evaluate": Work(model * scored, scored),
    }


def _student_images(config: StudentConfig, rows: int) -> int:
    return total_steps(config, rows=rows) * config.batch if rows >= config.batch else 0


def _pretraining(represent: RepresentConfig, generator: float, discriminator: float) -> Work:
    images = represent.steps_in_all * represent.images_per_step if represent.learnt else 0
    if represent.contrastive:  # the query forward and backward, and the key forward
        return Work(4 * _trunk_gflop(represent.trunk, represent.resolution, 2) * images, images)
    # G: forward and backward through both; D: forward of G, both ways twice through D
    return Work((4 * generator + 8 * discriminator) * images * GAN_SLOWER, images)


class Clock:
    """Estimates seconds per stage, corrected by what finished stages of the store took."""

    def __init__(
        self, trials: Iterable[Trial], store: StageStore, counts: Mapping[Split, int]
    ) -> None:
        self.counts = counts
        every = list(trials)
        self.correction = {name: self._correction(name, every, store) for name in NAMES}

    def seconds(self, trial: Trial, name: str) -> float:
        """Return the estimated seconds of one stage of a trial on one worker."""
        return self._expected(trial, name) * self.correction[name]

    def _expected(self, trial: Trial, name: str) -> float:
        seconds = work_of(trial.experiment, self.counts)[name].seconds(name)
        return seconds / max(1, len(trial.chain.projections)) if name == "project" else seconds

    def _correction(self, name: str, trials: list[Trial], store: StageStore) -> float:
        taken, expected = 0.0, 0.0
        stages = {stage: trial for trial in trials for stage in trial.chain if stage.name == name}
        for stage, trial in stages.items():
            if store.done(stage):
                taken += store.record(stage)["cost"]["seconds"]
                expected += self._expected(trial, name)
        return taken / expected if expected > 1.0 else 1.0


def scored_images(experiment: Experiment, counts: Mapping[Split, int]) -> int:
    """Return how many images an evaluation labels, all candidates together."""
    candidates = len(candidate_steps(experiment.fit))
    if experiment.distilled:
        candidates = experiment.student.checkpoints
    if experiment.evaluate.protocol == "five_folds":
        return candidates * counts.get("test", 0)
    return candidates * counts.get("val", 0) + counts.get("test", 0)


def peak_gib(experiment: Experiment, images: int) -> float:
    """Return the estimated memory of one worker: its process and the images it holds, in GiB."""
    return PROCESS_GIB + images * 3 * experiment.data.px**2 / 2**30


def disk_gib(experiment: Experiment) -> float:
    """Return the estimated disk space of one pretraining: weights and a checkpoint, in GiB."""
    represent = experiment.pretrain
    with torch.device("meta"):
        if represent.trains_generator:  # snapshots; the average, and both with Adam's moments
            generator = build_generator(represent.network)
            discriminator = build_discriminator(represent.network)
            snapshots = len(represent.gan.snapshot_steps) + 1
            numbers = (4 + snapshots) * _size(generator) + 3 * _size(discriminator)
        else:
            numbers = 5 * _size(build_trunk(represent.trunk))
            numbers += represent.moco.queue * represent.moco.dim
    return numbers * 4 / 2**30


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@functools.cache
def _trunk_gflop(config: TrunkConfig, px: int, stem_stride: Literal[1, 2]) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        trunk = build_trunk(config).eval()
        trunk.set_stem_stride(stem_stride)
        trunk.stages(torch.empty(1, 3, px, px))
    return float(counter.get_total_flops()) / 1e9


@functools.cache
def _student_gflop(config: StudentConfig) -> float:
    px = config.resolution
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_student(config, 12).eval()(torch.empty(1, 3, px, px))
    return float(counter.get_total_flops()) / 1e9


@functools.cache
def _gan_gflop(config: NetworkConfig) -> tuple[float, float]:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_generator(config)(torch.empty(1, config.z_dim))
        of_generator = float(counter.get_total_flops())
        build_discriminator(config)(torch.empty(1, 3, config.resolution, config.resolution))
    return of_generator / 1e9, (float(counter.get_total_flops()) - of_generator) / 1e9


def _generator_levels(config: NetworkConfig) -> Levels:
    every = [(config.channels(side), side) for side in config.resolutions[::-1] for _ in range(2)]
    return tuple(every if isinstance(config, StyleGan1Config) else every[:-1])


def network_of(represent: RepresentConfig) -> NetworkConfig:
    """Return the sizes of the generator of a generative representation."""
    if represent.method == "generator":
        return imported_config(str(represent.weights))
    return represent.network


@functools.cache
def _projector_gflop(config: ProjectorConfig, levels: Levels, px: int) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        maps = [torch.empty(1, channels, side, side) for channels, side in levels]
        widths = [channels for channels, _ in levels]
        build_projector(config, widths, 12).eval()(maps, px)
    return float(counter.get_total_flops()) / 1e9
