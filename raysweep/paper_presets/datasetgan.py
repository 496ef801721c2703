"""DatasetGAN (Zhang et al., CVPR 2021): an ensemble on the pixels of StyleGAN, then a student."""

from __future__ import annotations

from typing import Literal, NamedTuple

from raysweep.data.published.wanted import PUBLISHED
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.experiment import DataConfig, EvaluateConfig, Experiment
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.paper_presets.ganorcon import Target
from raysweep.paper_presets.stylegan import stylegan1
from raysweep.represent.config import RepresentConfig

CLEAN_PIXELS = 30
PSI = 0.7


class Sizes(NamedTuple):
    """What depends on the object.

    Attributes:
        generator_px: side of the generator's images.
        px: side at which the ensemble and the student work.
        shots: labelled images.
    """

    generator_px: Literal[256, 512, 1024]
    px: int
    shots: int


# experiments/*.json of the released code
SIZES: dict[Target, Sizes] = {
    "face34": Sizes(1024, 512, 16),
    "car20": Sizes(512, 512, 16),
    "cat16": Sizes(256, 256, 30),
}


def datasetgan(target: Target = "face34", *, released: bool = False) -> Experiment:
    """Return DatasetGAN (2104.06490, sections 3 and 4, and its released code).

    The released code differs in: the features are the second AdaIN and the raw second convolution
    (paper: both AdaINs), the instance norm of its port, and no image is dropped as uncertain
    (paper: the worst tenth).

    Not offered: truncation of the first 8 rows only (7 for cats; here all), cars cropped to 4:3,
    an ImageNet trunk in the student.

    Args:
        target: labelled data set; 16, 16 and 30 images carry labels.
        released: settings of the released code where they differ.
    """
    sizes = SIZES[target]
    gan = stylegan1(sizes.generator_px, released=released, mirror=target == "face34")
    return Experiment(
        data=DataConfig(source=f"{PUBLISHED}{target}", px=sizes.px, shots=sizes.shots),
        pretrain=RepresentConfig(method="stylegan1", gan=gan),
        project=ProjectionConfig(space="w+", steps=10_000),  # GanOrCon's table 3
        fit=FitConfig(
            method="pixel_ensemble",
            layers=feature_layers(gan.stylegan1, released=released),
            resolution=sizes.px,
            clean_pixels=CLEAN_PIXELS,
        ),
        distilled=True,
        label=LabelConfig(
            source="generated", psi=PSI, px=sizes.px, portion=0.0 if released else 0.1
        ),
        student=StudentConfig(resolution=sizes.px, epochs=20, checkpoints=20),
        evaluate=EvaluateConfig(px=sizes.px, protocol="five_folds"),
    )


def feature_layers(config: StyleGan1Config, *, released: bool) -> tuple[str, ...]:
    """Name the two maps per resolution that are the features, fine to coarse."""
    names = []
    for side in config.resolutions[::-1]:
        second = ("conv" if side == 4 else "conv1") if released else "epi1"
        names += [f"g_synthesis.blocks.{side}x{side}.{name}" for name in ("epi2", second)]
    return tuple(names)
