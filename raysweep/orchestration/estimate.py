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
from torch.utils.flop_counter import FlopCounterMode

from raysweep.data.records import Split
from raysweep.fewshot.projector import candidate_steps
from raysweep.nets.projectors import ProjectorConfig, build_projector
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.presets import Experiment

if TYPE_CHECKING:
    from raysweep.orchestration.plan import Trial
    from raysweep.orchestration.stages import StageStore

GFLOP_PER_SECOND = {"pretrain": 88.0, "fit": 50.0, "evaluate": 50.0}
SECONDS_PER_IMAGE = {"pretrain": 3.5e-4, "fit": 5e-4, "evaluate": 1e-3}
PROCESS_GIB = 0.8
NAMES = ("pretrain", "fit", "evaluate")


@dataclass(frozen=True)
class Work:
    """Operations and images of one stage."""

    gflop: float
    images: int

    def seconds(self, name: str) -> float:
        """Return the time on a core of the kind that the constants were measured on."""
        return self.gflop / GFLOP_PER_SECOND[name] + self.images * SECONDS_PER_IMAGE[name]


def work_of(experiment: Experiment, counts: Mapping[Split, int]) -> dict[str, Work]:
    """Return the work of each stage of an experiment on a dataset with that many images."""
    represent, fit = experiment.pretrain, experiment.fit
    learnt = represent.steps * represent.batch if represent.learnt else 0
    trunk = _trunk_gflop(represent.trunk, represent.resolution, 2) if represent.learnt else 0.0
    channels: tuple[int, ...] = (3,)
    features = 0.0
    if represent.method != "rgb":
        channels = build_trunk(represent.trunk).channels
        features = _trunk_gflop(represent.trunk, fit.resolution, 1)
    projector = _projector_gflop(fit.projector, channels, fit.resolution)
    seen = fit.steps * fit.batch
    scored = scored_images(experiment, counts)
    return {
        # the query forward and backward, and the key forward
        "pretrain": Work(4 * trunk * learnt, learnt),
        "fit": Work((features + 3 * projector) * seen, seen),
        "evaluate": Work((features + projector) * scored, scored),
    }


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
        return work_of(trial.experiment, self.counts)[name].seconds(name)

    def _correction(self, name: str, trials: list[Trial], store: StageStore) -> float:
        taken, expected = 0.0, 0.0
        stages = {getattr(trial.chain, name).key: trial for trial in trials}
        for trial in stages.values():
            stage = getattr(trial.chain, name)
            if store.done(stage):
                taken += store.record(stage)["cost"]["seconds"]
                expected += self._expected(trial, name)
        return taken / expected if expected > 1.0 else 1.0


def scored_images(experiment: Experiment, counts: Mapping[Split, int]) -> int:
    """Return how many images an evaluation labels, all candidates together."""
    candidates = len(candidate_steps(experiment.fit))
    if experiment.evaluate.protocol == "five_folds":
        return candidates * counts["test"]
    return candidates * counts["val"] + counts["test"]


def peak_gib(experiment: Experiment, images: int) -> float:
    """Return the estimated memory of one worker: its process and the images it holds, in GiB."""
    return PROCESS_GIB + images * 3 * experiment.data.px**2 / 2**30


def disk_gib(experiment: Experiment) -> float:
    """Return the estimated disk space of one pretraining: weights and a checkpoint, in GiB."""
    with torch.device("meta"):
        trunk = build_trunk(experiment.pretrain.trunk)
    weights = sum(parameter.numel() for parameter in trunk.parameters()) * 4
    queue = experiment.pretrain.moco.queue * experiment.pretrain.moco.dim * 4
    return (5 * weights + queue) / 2**30


@functools.cache
def _trunk_gflop(config: TrunkConfig, px: int, stem_stride: Literal[1, 2]) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        trunk = build_trunk(config).eval()
        trunk.set_stem_stride(stem_stride)
        trunk.stages(torch.empty(1, 3, px, px))
    return float(counter.get_total_flops()) / 1e9


@functools.cache
def _projector_gflop(config: ProjectorConfig, channels: tuple[int, ...], px: int) -> float:
    sides = [px] if len(channels) == 1 else [max(1, px >> level) for level in range(len(channels))]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        levels = [
            torch.empty(1, width, side, side) for width, side in zip(channels, sides, strict=True)
        ]
        build_projector(config, channels, 12).eval()(levels, px)
    return float(counter.get_total_flops()) / 1e9
