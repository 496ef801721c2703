"""The stages of an experiment and the keys under which their results are found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysweep.config import ConfigError, to_dict
from raysweep.data.records import Split
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.experiment import DataConfig, EvaluateConfig, Experiment
from raysweep.orchestration.compute.annotated import annotations_of
from raysweep.orchestration.compute.distances import check_distance
from raysweep.orchestration.store.stages import Stage
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan_weights import GENERATOR

VERSIONS = {"pretrain": 1, "project": 1, "fit": 1, "label": 1, "distill": 1, "evaluate": 2}
"""Raised when a change of code changes what a stage computes from the same settings."""


SPLITS: dict[str, tuple[Split, ...]] = {
    "held_out": ("train", "val", "test"),
    "five_folds": ("train", "test"),
}
"""What a protocol looks at, the labelled training images included."""


@dataclass(frozen=True)
class Chain:
    """The stages of one experiment.

    Attributes:
        pretrain: the representation.
        projections: split to the search for its images in a generator; empty for representations
            that take images as they are. Annotated samples are not looked for.
        trunk: what a segmentor starts from, if anything.
        fit: the projector on it, or the annotator.
        evaluate: the scores of the projector, or of the student.
        label: what the projector's last candidate says of many images; if distilled.
        distill: the student; if distilled.
    """

    pretrain: Stage
    projections: Mapping[Split, Stage]
    fit: Stage
    evaluate: Stage
    label: Stage | None = None
    distill: Stage | None = None
    trunk: Stage | None = None

    @property
    def model(self) -> Stage:
        """The stage whose model is scored."""
        return self.distill or self.fit

    def __iter__(self) -> Iterator[Stage]:
        """Iterate over the stages in the order in which they are computed."""
        yield from (self.pretrain, *self.projections.values())
        later = (self.trunk, self.fit, self.label, self.distill)
        yield from (stage for stage in later if stage is not None)
        yield self.evaluate


def chain_of(experiment: Experiment, fingerprint: str) -> Chain:
    """Return the stages of an experiment on the dataset with that fingerprint.

    Raises:
        ConfigError: a file that it names cannot be used.
    """
    data, images = experiment.data, {"data": fingerprint}
    pretrain = pretrain_stage(experiment.pretrain, images, px=data.px)
    trunk = None
    if experiment.trunk is not None:
        trunk = pretrain_stage(experiment.trunk, images, px=data.px)
    labelled = {"shots": data.shots, "draw": data.draw}
    projections: dict[Split, Stage] = {}
    if experiment.pretrain.generative:
        for split in _looked_for(experiment):
            config = {"project": _searched(experiment), "split": split}
            projections[split] = Stage(
                "project",
                config | (labelled if split == "train" else {}),
                {"pretrain": pretrain.key} | images,
                VERSIONS["project"],
            )
    found = {f"{split} codes": stage.key for split, stage in projections.items()}
    train = {k: v for k, v in found.items() if "train" in k}
    train |= {} if trunk is None else {"trunk": trunk.key}
    fit = Stage(
        "fit",
        {"fit": experiment.fit.relevant(), "px": data.px} | labelled,
        {"pretrain": pretrain.key} | images | _annotated(experiment, pretrain) | train,
        VERSIONS["fit"],
    )
    if experiment.distilled:
        label = label_stage(experiment.label, fit.key, fingerprint)
        distill = distill_stage(
            experiment.student, {"label": label.key, "data": fingerprint}, data=data
        )
        evaluate = evaluate_stage(experiment.evaluate, {"distill": distill.key} | images)
        return Chain(pretrain, projections, fit, evaluate, label, distill, trunk)
    codes = {k: v for k, v in found.items() if "train" not in k}
    evaluate = evaluate_stage(experiment.evaluate, {"fit": fit.key} | images | codes)
    return Chain(pretrain, projections, fit, evaluate, trunk=trunk)


def _looked_for(experiment: Experiment) -> tuple[Split, ...]:
    """Return the splits whose images are to be found in the generator."""
    # a student takes images: only the labelled ones must be found
    splits = ("train",) if experiment.distilled else SPLITS[experiment.evaluate.protocol]
    matching = experiment.fit.matching if experiment.fit.method == "matching" else None
    if matching is not None and not experiment.evaluate.annotator:
        splits = ("train",)
    are_known = experiment.annotated is not None
    if are_known or (matching is not None and matching.objective != "inversion"):
        splits = tuple(split for split in splits if split != "train")
    return splits


def _annotated(experiment: Experiment, pretrain: Stage) -> dict[str, str]:
    if experiment.annotated is None:
        return {}
    annotations = annotations_of(experiment.annotated, generator=pretrain.key)
    annotations.shots(experiment.data.shots, experiment.data.draw)  # there are enough
    return {"annotated": annotations.digest}


def label_stage(config: LabelConfig, teacher: str, fingerprint: str) -> Stage:
    """Return the stage of pseudo-labels.

    Args:
        config: what is labelled.
        teacher: key of the fit stage whose last candidate labels.
        fingerprint: of the dataset that the images are from; not read if they are generated.
    """
    images = {} if config.source == "generated" else {"data": fingerprint}
    return Stage(
        "label", {"label": config.relevant()}, {"fit": teacher} | images, VERSIONS["label"]
    )


def distill_stage(config: StudentConfig, inputs: Mapping[str, str], *, data: DataConfig) -> Stage:
    """Return the stage of a student.

    Args:
        config: the student.
        inputs: what it learns from: ``label`` stage, or fingerprint of other ``shards``; and
            ``data``, the dataset with its classes.
        data: which labelled images measure the validation loss, if the learning rate follows it.
    """
    labelled = {"shots": data.shots, "draw": data.draw}
    return Stage(
        "distill",
        {"student": config.relevant()} | (labelled if config.plateau_patience is not None else {}),
        inputs,
        VERSIONS["distill"],
    )


def evaluate_stage(config: EvaluateConfig, inputs: Mapping[str, str]) -> Stage:
    """Return the stage of a model's scores."""
    settings = to_dict(config)
    if not config.annotator:  # of a segmentor, a student or a projector, which have no other
        del settings["annotator"]
    return Stage("evaluate", {"evaluate": settings}, inputs, VERSIONS["evaluate"])


def pretrain_stage(config: RepresentConfig, images: dict[str, str], *, px: int) -> Stage:
    """Return the stage of a representation, or of a trunk.

    Args:
        config: what is trained or read.
        images: fingerprint of the dataset.
        px: side at which a contrastive method reads images; a generator has its own.

    Raises:
        ConfigError: a file that it names cannot be used.
    """
    represent = config.relevant()
    read_at: dict[str, int] = {}
    if config.contrastive or config.method == "random":
        read_at = {"px": px}
    elif not config.trains_generator:
        images = {}
    if config.method == "weights":  # the content of a file, not its path
        represent["weights"] = file_digest("pretrain.weights", str(config.weights))
    if config.method == "generator":
        place = Path(str(config.weights)) / GENERATOR
        represent["weights"] = file_digest("pretrain.weights", str(place))
    if config.trains_generator and config.gan.inception is not None:
        represent["gan"]["inception"] = file_digest("pretrain.gan.inception", config.gan.inception)
    return Stage("pretrain", {"represent": represent} | read_at, images, VERSIONS["pretrain"])


def _searched(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of the search, with the content of the distance's file, not its path."""
    config = experiment.project
    settings = config.relevant()
    if config.weights is not None:
        settings["weights"] = file_digest("project.weights", config.weights)
        check_distance(config, content=settings["weights"])
    return settings


def file_digest(setting: str, path: str) -> str:
    """Return a hash of a file's content.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
    except OSError as error:
        raise ConfigError(
            f"{setting} = {path!r} cannot be read: {error.strerror}; give a local file"
        ) from None
