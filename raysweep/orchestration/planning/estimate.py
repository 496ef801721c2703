"""How long, how much memory and how much disk a plan will take, before anything starts.

Work is counted from shapes: floating point operations, numbers that pass through memory, images.
The constants are processor seconds of this code on one core of a small cloud machine: what it takes
where nothing but the sweep runs there. Where the same store holds finished stages, what they took
corrects them. For GPUs see :mod:`raysweep.orchestration.planning.devices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysweep.data.records import Split
from raysweep.distill.student_config import StudentConfig, total_steps
from raysweep.experiment import Experiment
from raysweep.fewshot.pixel_classifier import PASSES_BEFORE_STOPPING
from raysweep.fewshot.projector import candidate_steps
from raysweep.orchestration.planning.networks import Networks, networks_of
from raysweep.orchestration.planning.shapes import discriminator_cost, generator_cost, trunk_cost
from raysweep.orchestration.store.checkpoints import KEPT as CHECKPOINTS_KEPT
from raysweep.represent.config import RepresentConfig

if TYPE_CHECKING:
    from raysweep.orchestration.planning.plan import Trial
    from raysweep.orchestration.store.stages import Stage, StageStore

GFLOP_PER_SECOND = 115.0
SECONDS_PER_NUMBER = {
    "pretrain": 2e-9,
    "project": 1.8e-9,
    "fit": 5e-9,
    "label": 2.5e-9,
    "distill": 5e-9,
    "evaluate": 2.5e-9,
}
SECONDS_PER_IMAGE = {  # decoding, encoding, launching
    "pretrain": 0.0,
    "project": 0.0,
    "fit": 5e-4,
    "label": 1e-3,
    "distill": 6e-4,
    "evaluate": 3e-4,
}
SECONDS_PER_PIXEL = 2e-7  # of a view
BESIDE = 1.2  # workers on all cores slow each other down
TICK = 1.05  # a generator's training stops for samples and distances
STRAY_STEPS = 3  # times its patience until the last member of an ensemble is done
PROCESS_GIB = 0.8
NAMES = ("pretrain", "project", "fit", "label", "distill", "evaluate")


@dataclass(frozen=True)
class Work:
    """What a stage does.

    Attributes:
        gflop: floating point operations, in thousands of millions.
        images: images that it sees, repetitions included.
        numbers: activations that pass through memory.
        pixels: of augmented views.
    """

    gflop: float
    images: float
    numbers: float = 0.0
    pixels: float = 0.0

    def seconds(self, name: str) -> float:
        """Return the time on a core of the kind that the constants were measured on."""
        alone = (
            self.gflop / GFLOP_PER_SECOND
            + self.numbers * SECONDS_PER_NUMBER[name]
            + self.images * SECONDS_PER_IMAGE[name]
            + self.pixels * SECONDS_PER_PIXEL
        )
        return BESIDE * alone

    def times(self, count: float) -> Work:
        """Return so many times the work."""
        return Work(
            self.gflop * count, self.images * count, self.numbers * count, self.pixels * count
        )


def work_of(experiment: Experiment, counts: Mapping[Split, int]) -> dict[str, Work]:
    """Return the work of each kind of stage on a dataset with that many images.

    That of ``project`` is of one image; a stage searches those of a split.
    """
    nets = networks_of(experiment)
    steps = experiment.project.steps
    labelled = experiment.label.images
    if experiment.label.source == "unlabelled":
        labelled = min(labelled, _unlabelled(counts))
    learnt = _student_images(experiment.student, labelled)
    scored = scored_images(experiment, counts)
    return {
        "pretrain": pretraining_work(experiment.pretrain, counts, px=experiment.data.px),
        "project": Work(3 * nets.generator.gflop * steps, 1, nets.generator.kept * steps),
        "fit": _fitting(experiment, nets),
        "label": Work(
            (nets.features.gflop + nets.annotator.gflop) * labelled,
            labelled,
            nets.annotator.kept * labelled,
        ),
        "distill": Work(3 * nets.student.gflop * learnt, learnt, nets.student.kept * learnt),
        "evaluate": Work(nets.scored.gflop * scored, scored, nets.scored.kept * scored),
    }


def scored_images(experiment: Experiment, counts: Mapping[Split, int]) -> int:
    """Return how many images an evaluation labels, all candidates together."""
    candidates = len(candidate_steps(experiment.fit))
    if experiment.distilled:
        candidates = experiment.student.checkpoints
    if experiment.evaluate.protocol == "five_folds":
        return candidates * counts.get("test", 0)
    return candidates * counts.get("val", 0) + counts.get("test", 0)


def _unlabelled(counts: Mapping[Split, int]) -> int:
    return counts.get("unlabelled", 0) or counts.get("train", 0)


def _student_images(config: StudentConfig, rows: int) -> int:
    return total_steps(config, rows=rows) * config.batch if rows >= config.batch else 0


def pretraining_work(represent: RepresentConfig, counts: Mapping[Split, int], *, px: int) -> Work:
    """Return the work of a representation whose images are read at a side of ``px``."""
    images = represent.steps_in_all * represent.images_per_step if represent.learnt else 0
    if represent.contrastive:
        trunk = trunk_cost(represent.trunk, represent.resolution, 2)
        # MoCo: the query forward and backward, the key forward; SimSiam: both views both ways
        passes, views = (4, 1) if represent.method == "moco" else (6, 2)
        return Work(
            passes * trunk.gflop * images,
            images,
            views * trunk.kept * images,
            2 * represent.resolution**2 * images,
        )
    if represent.trains_generator:
        return _adversarial(represent, images)
    if represent.method == "random":  # its batch norms see every image once
        seen = _unlabelled(counts)
        trunk = trunk_cost(represent.trunk, px, 2)
        return Work(trunk.gflop * seen, seen, trunk.kept * seen)
    return Work(0.0, 0.0)


def _adversarial(represent: RepresentConfig, images: int) -> Work:
    """Generator and discriminator forward and backward through both, the regularisers besides."""
    gan = represent.gan
    made, judged = generator_cost(represent.network), discriminator_cost(represent.network)
    # a penalty differentiates twice
    penalty = (6 / gan.r1_interval) if gan.r1_gamma else 0.0
    path = (8 / gan.path_interval / gan.path_shrink) if gan.path_weight else 0.0
    per_image = (4 + path) * made.gflop + (9 + penalty) * judged.gflop
    kept = (1 + path / 2) * made.kept + (3 + penalty / 2) * judged.kept
    return Work(per_image * images * TICK, images, kept * images * TICK)


def _fitting(experiment: Experiment, nets: Networks) -> Work:
    fit = experiment.fit
    if fit.method == "pixel_ensemble":
        pixel, pixels = fit.pixel, experiment.data.shots * fit.resolution**2
        steps = min(PASSES_BEFORE_STOPPING, pixel.epochs) * pixels / pixel.batch
        seen = (steps + STRAY_STEPS * pixel.patience) * pixel.batch * pixel.members
        sizes = (nets.channels, *nets.pixel_widths, nets.classes)
        products = sum(wide * out for wide, out in zip(sizes, sizes[1:], strict=False))
        gathered = nets.features.gflop * experiment.data.shots
        # a pixel of a map lies between four of its numbers
        return Work(6e-9 * products * seen + gathered, 0.0, 5 * nets.channels * seen)
    if fit.method == "matching":
        config = fit.matching
        made = config.total_steps * config.generated_batch
        given = config.total_steps * config.labelled_batch
        # matched gradients are differentiated once more; then the segmentor's own step
        once = 2 * nets.features.gflop + 4 * nets.annotator.gflop + 9 * nets.segmentor.gflop
        kept = nets.annotator.kept + 3 * nets.segmentor.kept
        gflop = once * made + 3 * nets.segmentor.gflop * given
        return Work(gflop, made + given, kept * made + nets.segmentor.kept * given)
    seen = fit.steps * fit.batch
    gflop = (nets.features.gflop + 3 * nets.annotator.gflop) * seen
    return Work(gflop, seen, nets.annotator.kept * seen)


class Clock:
    """Estimates seconds per stage, corrected by what finished stages of the store took."""

    def __init__(
        self, trials: Iterable[Trial], store: StageStore, counts: Mapping[Split, int]
    ) -> None:
        self.counts = counts
        every = list(trials)
        self.correction = {name: self._correction(name, every, store) for name in NAMES}

    def seconds(self, trial: Trial, name: str) -> float:
        """Return the estimated seconds of a stage of a trial on one worker.

        Of several stages of that name (searches in a generator) it is the mean.
        """
        stages = [stage for stage in trial.chain if stage.name == name]
        every = [self.work(trial, stage).seconds(name) for stage in stages]
        return sum(every) / max(1, len(every)) * self.correction[name]

    def of(self, trial: Trial, stage: Stage) -> float:
        """Return the estimated seconds of one stage of a trial on one worker."""
        return self.work(trial, stage).seconds(stage.name) * self.correction[stage.name]

    def work(self, trial: Trial, stage: Stage) -> Work:
        """Return the work of one stage of a trial."""
        experiment = trial.experiment
        if experiment.trunk is not None and stage == trial.chain.trunk:
            return pretraining_work(experiment.trunk, self.counts, px=experiment.data.px)
        work = work_of(experiment, self.counts)[stage.name]
        if stage.name != "project":
            return work
        split = stage.config["split"]
        return work.times(experiment.data.shots if split == "train" else self.counts[split])

    def _correction(self, name: str, trials: list[Trial], store: StageStore) -> float:
        taken, expected = 0.0, 0.0
        stages = {stage: trial for trial in trials for stage in trial.chain if stage.name == name}
        for stage, trial in stages.items():
            if store.done(stage):
                taken += store.record(stage)["cost"]["seconds"]
                expected += self.work(trial, stage).seconds(name)
        return taken / expected if expected > 1.0 else 1.0


def peak_gib(experiment: Experiment, images: int) -> float:
    """Return the estimated memory of one worker: its process and the images it holds, in GiB."""
    return PROCESS_GIB + images * 3 * experiment.data.px**2 / 2**30


def disk_gib(experiment: Experiment) -> float:
    """Return the estimated disk space of one pretraining: weights and checkpoints, in GiB."""
    represent = experiment.pretrain
    if represent.trains_generator:  # snapshots; the average, and both with Adam's moments
        made = generator_cost(represent.network).weights
        left = (len(represent.gan.snapshot_steps) + 1) * made
        saved = 4 * made + 3 * discriminator_cost(represent.network).weights
    else:
        left = trunk_cost(represent.trunk, represent.trunk.minimum_px, 2).weights
        saved = 4 * left + represent.moco.queue * represent.moco.dim
    return (left + CHECKPOINTS_KEPT * saved) * 4 / 2**30
