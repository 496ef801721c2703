"""What an experiment is: everything that determines one number in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from raysweep.config import Config, ConfigError
from raysweep.data.builtin import BuiltinConfig
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.fewshot.segmentors import SegmentorConfig
from raysweep.represent.config import RepresentConfig


class DataConfig(Config):
    """Which images, and how many of them carry labels.

    Attributes:
        source: ``face`` or ``car`` (built in), a folder of images and masks, or a Parquet dataset.
        unlabelled_from: dataset whose images, all of them, are the unlabelled ones; ``source``'s
            own if left out.
        labels_from: dataset whose training images are the labelled ones, of the same classes:
            another domain, such as rendered objects. Validation and test images stay ``source``'s.
        px: side in pixels at which images are read (squares, as in the papers).
        shots: number of labelled training images.
        draw: which draw of the labelled subset; draw 0 follows the dataset's own order, if any.
        builtin: what to render when ``source`` is built in.
    """

    source: str = "face"
    unlabelled_from: str | None = None
    labels_from: str | None = None
    px: int = Field(64, gt=0)
    shots: int = Field(16, gt=0)
    draw: int = Field(0, ge=0)
    builtin: BuiltinConfig = BuiltinConfig()


class EvaluateConfig(Config):
    """How a fitted projector, or a student, is scored.

    Attributes:
        px: side in pixels to which all predictions are upsampled before scoring.
        protocol: ``held_out`` picks the checkpoint on the validation split and reports the test
            split; ``five_folds`` is DatasetGAN's protocol on the test split.
        annotator: score the annotator of gradient matching, on codes found for the images, in
            place of the segmentor, on the images; read if ``fit.method`` is ``matching``.
        absent: what a class counts that occurs neither in truth nor prediction: ``zero`` as in
            the papers, or ``skip``.
        images: number of fixed test images in the picture of predictions.
    """

    px: int = Field(64, gt=0)
    protocol: Literal["held_out", "five_folds"] = "held_out"
    annotator: bool = False
    absent: Literal["zero", "skip"] = "zero"
    images: int = Field(8, gt=0)


class Experiment(Config):
    """Everything that determines one number in a table.

    Attributes:
        data: the images.
        pretrain: the representation.
        project: how images are found in a generator; read by generative representations only.
        annotated: directory made by ``jobs/generate.py --to-label``, with masks: the labelled
            images of a generative representation, on a file system that every worker sees. None
            takes the dataset's own labelled images, looked for in the generator.
        trunk: what gradient matching's DeepLabV3 starts from, a trunk trained by a contrastive
            method or given as weights; None: random weights.
        fit: the projector.
        distilled: whether a student is scored in place of the projector. The projector's last
            candidate is its teacher: no labelled image but the few shots helps to choose it.
        label: the images that the teacher labels; read if ``distilled``.
        student: the student; read if ``distilled``.
        evaluate: the protocol.
    """

    data: DataConfig = DataConfig()
    pretrain: RepresentConfig = RepresentConfig()
    project: ProjectionConfig = ProjectionConfig()
    annotated: str | None = None
    trunk: RepresentConfig | None = None
    fit: FitConfig = FitConfig()
    distilled: bool = False
    label: LabelConfig = LabelConfig()
    student: StudentConfig = StudentConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("annotated")
    @classmethod
    def _seen_from_everywhere(cls, value: str | None) -> str | None:
        """Workers run in other directories."""
        return None if value is None else str(Path(value).expanduser().resolve())

    @model_validator(mode="after")
    def _annotated_images_have_codes(self) -> Experiment:
        if self.annotated is None:
            return self
        if not self.pretrain.generative:
            raise ConfigError(
                f"annotated = {self.annotated!r}: pretrain.method = {self.pretrain.method!r} takes "
                "images, not codes of a generator; give the directory as data.source, or a "
                "generative method"
            )
        if self.distilled and self.student.plateau_patience is not None:
            raise ConfigError(
                f"student.plateau_patience = {self.student.plateau_patience}: it would look at "
                "labelled images other than the annotated ones; set it to none"
            )
        return self

    @model_validator(mode="after")
    def _trunk_takes_the_fit_resolution(self) -> Experiment:
        smallest = self.pretrain.trunk.minimum_px // 2  # the stem's stride is 1 here
        has_trunk = self.pretrain.method != "rgb" and not self.pretrain.generative
        if has_trunk and self.fit.resolution < smallest:
            raise ConfigError(
                f"fit.resolution = {self.fit.resolution}: trunk {self.pretrain.trunk.name!r} needs "
                f"at least {smallest} px"
            )
        return self

    @model_validator(mode="after")
    def _matching_has_what_it_needs(self) -> Experiment:
        matching = self.fit.matching
        if self.fit.method != "matching":
            if self.trunk is not None:
                raise ConfigError(
                    f"trunk: only read by fit.method = 'matching', not {self.fit.method!r}; the "
                    "representation is set by pretrain"
                )
            return self
        if not self.pretrain.generative:
            raise ConfigError(
                f"fit.method = 'matching': learns to label a generator's images, and "
                f"pretrain.method = {self.pretrain.method!r} has none; take stylegan2, stylegan1 "
                "or generator"
            )
        if self.trunk is not None:
            _check_trunk(self.trunk, matching.segmentor)
        scored_by_annotator = self.distilled or self.evaluate.annotator
        if scored_by_annotator and not matching.annotates:
            raise ConfigError(
                f"fit.matching.objective = {matching.objective!r}: trains no annotator; set "
                "distilled=false and evaluate.annotator=false"
            )
        if not scored_by_annotator and not matching.segments:
            raise ConfigError(
                f"fit.matching.objective = {matching.objective!r}: trains no segmentor; set "
                "distilled=true or evaluate.annotator=true"
            )
        return self

    @model_validator(mode="after")
    def _teacher_takes_the_images(self) -> Experiment:
        if not self.distilled:
            return self
        is_generator = self.pretrain.generative
        if is_generator != (self.label.source == "generated"):
            needed = "generated" if is_generator else "unlabelled"
            raise ConfigError(
                f"label.source = {self.label.source!r}: a teacher on pretrain.method = "
                f"{self.pretrain.method!r} labels {needed} images; set label.source={needed}"
            )
        if self.student.loss == "soft" and not self.label.soft:
            raise ConfigError(
                "label.soft = 0: student.loss = 'soft' needs soft labels; set label.soft to the "
                "number of classes kept per pixel, or student.loss=hard"
            )
        return self


def _check_trunk(trunk: RepresentConfig, segmentor: SegmentorConfig) -> None:
    """Check that a segmentor can start from a trunk.

    Raises:
        ConfigError: they do not fit.
    """
    if trunk.generative or trunk.method == "rgb":
        raise ConfigError(
            f"trunk.method = {trunk.method!r} leaves no trunk; take moco, simsiam or weights"
        )
    name = trunk.trunk.name
    fits = segmentor.network == f"deeplab_{name}"
    if name == "thin":
        fits = fits and segmentor.thin.trunk_width == trunk.trunk.width
    if not fits:
        raise ConfigError(
            f"trunk.trunk.name = {name!r}, width {trunk.trunk.width}: "
            f"fit.matching.segmentor.network = {segmentor.network!r} does not start from it; "
            f"take 'deeplab_{name}' of that width, or no trunk"
        )
