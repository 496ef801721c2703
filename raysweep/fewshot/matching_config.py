"""Settings of gradient matching and of its rivals, which are settings of the same training."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from raysweep import collective
from raysweep.config import Config, ConfigError, to_dict
from raysweep.data.joint import JointConfig
from raysweep.fewshot.maml import MamlConfig
from raysweep.fewshot.matching_distance import Normaliser
from raysweep.fewshot.segmentors import Block, SegmentorConfig
from raysweep.nets.fpn import FpnConfig
from raysweep.nets.gans import Generator

Objective = Literal["matching", "maml", "pseudo_labels", "inversion", "supervised"]
State = Literal["trained", "reinitialised", "pretrained", "scratch", "fixed", "pretrained_fixed"]
READ_BY_ALL = {"objective", "momentum", "optimizer", "lr_floor", "labelled_batch", "resolution"}
READ_BY_ALL |= {"clean_pixels", "steps", "checkpoints", "seed"}
READ_BY_ANNOTATOR = {"annotator", "layers", "annotator_interval", "annotator_lr"}
READ_WITH_IMAGES = {"segmentor", "augment"}
READ_WITH_GENERATED = {"generated_batch", "psi", "cutoff"}
READ_BY_PAIR = {"block", "state", "segmentor_interval", "segmentor_lr"}


class MatchingConfig(Config):
    """How an annotator on a generator's maps is trained; by default LAGM's released code.

    Attributes:
        objective: what the annotator minimises. ``matching``: the distance between the segmentor's
            gradients on labelled images and on generated ones with the annotator's labels;
            ``maml``: the labelled loss after inner steps on these (LAGM algorithm 2);
            ``pseudo_labels``: cross-entropy with the labels that a segmentor, trained before on the
            labelled images, gives to generated ones (table C.6); ``inversion``: cross-entropy on
            the codes found for the labelled images (table C.5). ``supervised`` trains no
            annotator, but the segmentor on the labelled images alone (table C.11).
        annotator: sizes of the feature pyramid.
        layers: names of the generator's modules that the annotator reads, fine to coarse; the
            output of every block if left out.
        segmentor: the segmentation network.
        block: its parameters whose gradients are matched; of ``maml``, those that the inner steps
            change.
        state: of the segmentor (section C.2). ``trained`` from the given trunk, if any, and from
            ``scratch``; ``reinitialised`` with other random weights in place of each update;
            ``pretrained`` by ``pretrain_steps`` before; ``fixed`` and ``pretrained_fixed`` are not
            updated.
        pretrain_steps: supervised steps of the segmentor on the labelled images before all others;
            only of the pretrained states and of ``pseudo_labels``.
        annotator_interval: steps per update of the annotator.
        segmentor_interval: steps per update of the segmentor, K in the paper. The released code
            ignores it: both are updated in every step.
        normaliser: see :data:`raysweep.fewshot.matching_distance.Normaliser`. The default is the
            released code's, to which the learning rates belong.
        annotator_lr: learning rate.
        segmentor_lr: learning rate.
        optimizer: of both networks.
        momentum: of SGD; of Adam, its first beta.
        lr_floor: both learning rates fall as half a cosine to this part; 1 keeps them, as released.
        labelled_batch: labelled images per step, over all workers.
        generated_batch: generated images per update, over all workers.
        psi: truncation of the generator.
        cutoff: rows of w that are truncated, from the coarsest; none: all. LAGM takes 8, for cats
            and Pascal 7.
        resolution: side in pixels of the segmentor's images (table C.9), at most the generator's,
            which it is if left out; the annotator reads maps at their own size.
        augment: joint augmentation of labelled images and masks; none as released.
        clean_pixels: classes with fewer pixels than this in a mask become background (30 in LAGM).
        maml: inner steps of ``maml``.
        steps: after pretraining.
        checkpoints: number of candidates kept, evenly spaced, the last at the end; 20 in the
            evaluation by cross-validation.
        seed: seed of weights, latents, order, augmentation and dropout.
    """

    objective: Objective = "matching"
    annotator: FpnConfig = FpnConfig()
    layers: tuple[str, ...] | None = None
    segmentor: SegmentorConfig = SegmentorConfig()
    block: Block = "head"
    state: State = "trained"
    pretrain_steps: int = Field(default=1000, ge=1)
    annotator_interval: int = Field(default=1, ge=1)
    segmentor_interval: int = Field(default=1, ge=1)
    normaliser: Normaliser = "released"
    annotator_lr: float = Field(default=1e-3, gt=0)
    segmentor_lr: float = Field(default=1e-3, gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    lr_floor: float = Field(default=1.0, ge=0, le=1)
    labelled_batch: int = Field(default=2, ge=1)
    generated_batch: int = Field(default=2, ge=1)
    psi: float = Field(default=0.7, ge=0)
    cutoff: int | None = Field(default=None, ge=0)
    resolution: int | None = Field(default=None, ge=1)
    augment: JointConfig | None = None
    clean_pixels: int = Field(default=30, ge=0)
    maml: MamlConfig = MamlConfig()
    steps: int = Field(default=150_000, ge=1)
    checkpoints: int = Field(default=20, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _fields_agree(self) -> MatchingConfig:
        if self.checkpoints > self.steps:
            raise ConfigError(
                f"checkpoints = {self.checkpoints}: at most one per step, steps = {self.steps}"
            )
        if self.objective in ("matching", "maml"):
            self.segmentor.check_block(self.block)
        if self.segmentor.is_unet and self.state == "scratch":
            raise ConfigError(
                "state = 'scratch': the U-Net has no trunk and always starts from scratch; take "
                "'trained'"
            )
        return self

    @property
    def annotates(self) -> bool:
        """Whether an annotator is trained."""
        return self.objective != "supervised"

    @property
    def segments(self) -> bool:
        """Whether the segmentor is a result: by itself or together with the annotator."""
        return self.objective in ("matching", "maml", "supervised")

    @property
    def before(self) -> int:
        """Steps of pretraining."""
        pseudo = self.objective == "pseudo_labels"
        states = self.objective in ("matching", "maml") and self.state.startswith("pretrained")
        return self.pretrain_steps if pseudo or states else 0

    @property
    def total_steps(self) -> int:
        """Steps of the learner, pretraining included."""
        return self.before + self.steps

    def relevant(self) -> dict[str, Any]:
        """Return only the settings that the objective reads: what a stage's key is made of."""
        read = set(READ_BY_ALL)
        if self.annotates:
            read |= READ_BY_ANNOTATOR
        if self.objective != "inversion":
            read |= READ_WITH_IMAGES
        if self.annotates and self.objective != "inversion":
            read |= READ_WITH_GENERATED
        if self.objective == "supervised":
            read.add("segmentor_lr")
        if self.objective in ("matching", "maml"):
            read |= READ_BY_PAIR
        if self.objective == "matching":
            read.add("normaliser")
        if self.objective == "maml":
            read.add("maml")
        if self.before:
            read |= {"pretrain_steps", "segmentor_lr"}
        data = to_dict(self)
        unread = {"thin", "unet"}
        unread -= {{"deeplab_thin": "thin"}.get(self.segmentor.network, self.segmentor.network)}
        data["segmentor"] = {k: v for k, v in data["segmentor"].items() if k not in unread}
        return {key: value for key, value in data.items() if key in read}


class Labelled(NamedTuple):
    """The labelled set.

    Attributes:
        inputs: ``(shots, 3, height, width)`` uint8 images; of ``inversion`` codes ``(shots,
            length)`` float.
        masks: ``(shots, height, width)`` uint8.
    """

    inputs: torch.Tensor
    masks: torch.Tensor


def candidate_steps(config: MatchingConfig) -> tuple[int, ...]:
    """Return the steps after which a candidate checkpoint is kept, ascending."""
    count = config.checkpoints
    return tuple(config.before + config.steps * (at + 1) // count for at in range(count))


def learning_rate_factor(step: int, *, config: MatchingConfig) -> float:
    """Return what the learning rates are multiplied by after ``step`` steps, pretraining apart."""
    part = max(step - config.before, 0) / config.steps
    return config.lr_floor + (1 - config.lr_floor) * 0.5 * (1 + math.cos(math.pi * part))


def check_fit(
    config: MatchingConfig, *, generator: Generator, labelled: Labelled, num_classes: int
) -> None:
    """Refuse a labelled set, generator and segmentor that cannot be trained together.

    Raises:
        ConfigError: says what does not fit and what to do.
    """
    _check_labelled(config, generator, labelled, num_classes)
    made, px = generator.config.resolution, config.resolution or generator.config.resolution
    if px > made:
        raise ConfigError(
            f"resolution = {px}: the generator makes {made} px; take {made} or less, or another "
            "generator"
        )
    if config.objective == "inversion":
        return
    if px < config.segmentor.minimum_px:
        raise ConfigError(
            f"resolution = {px}: segmentor.network = {config.segmentor.network!r} of these sizes "
            f"needs {config.segmentor.minimum_px} px or more"
        )
    if config.cutoff is not None and config.cutoff > generator.config.num_ws:
        raise ConfigError(
            f"cutoff = {config.cutoff}: the generator has {generator.config.num_ws} rows of w; "
            "take fewer, or none for all"
        )
    _check_batches(config)


def _check_labelled(
    config: MatchingConfig, generator: Generator, labelled: Labelled, num_classes: int
) -> None:
    inputs, masks = labelled
    codes = config.objective == "inversion"
    if codes:
        fits = inputs.ndim == 2 and masks.ndim == 3 and len(inputs) == len(masks)
    else:
        shape = (len(inputs), *inputs.shape[2:])
        fits = inputs.ndim == 4 and inputs.shape[1] == 3 and masks.shape == shape
    if not fits or not len(inputs):
        wanted = "codes (shots, length)" if codes else "images (shots, 3, height, width)"
        raise ConfigError(
            f"labelled set: {tuple(inputs.shape)} and masks {tuple(masks.shape)}; objective = "
            f"{config.objective!r} takes {wanted} and as many masks of their size, one or more"
        )
    largest = int(masks.max())
    if largest >= num_classes:
        raise ConfigError(
            f"labelled set: class {largest} in a mask, but {num_classes} classes; merge the "
            "classes or correct num_classes"
        )
    rows = generator.config.num_ws * generator.config.w_dim
    noise = sum(side * side for _, side, _ in generator.synthesis.noise_shapes)
    if codes and inputs.shape[1] not in (rows, rows + noise):
        raise ConfigError(
            f"labelled set: codes of length {inputs.shape[1]}, but this generator takes {rows}, "
            f"or {rows + noise} with noise; project the images with it"
        )


def _check_batches(config: MatchingConfig) -> None:
    workers, least = collective.size(), 1 if config.segmentor.is_unet else 2
    for name in ("labelled_batch", "generated_batch"):
        batch = getattr(config, name)
        if batch % workers or batch // workers < least:
            raise ConfigError(
                f"{name} = {batch}: {workers} workers with segmentor.network = "
                f"{config.segmentor.network!r} need a multiple of {workers}, at least "
                f"{least * workers}"
            )
