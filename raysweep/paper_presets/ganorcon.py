"""GanOrCon (Saha et al., CVPR 2022): contrastive features, two projectors, one student."""

from __future__ import annotations

from typing import Literal, NamedTuple

from raysweep.data.published.wanted import PUBLISHED
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.experiment import DataConfig, EvaluateConfig, Experiment
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.paper_presets.stylegan import AdaName, stylegan2_ada
from raysweep.represent.config import RepresentConfig

Target = Literal["face34", "car20", "cat16"]
FFHQ_IMAGES = 70_000
CHECKPOINT_EPOCHS = 20  # the released code keeps a candidate that often


class Sizes(NamedTuple):
    """What depends on the labelled data set.

    Attributes:
        px: side at which everything works.
        shots: labelled images.
        images: unlabelled images of the pretraining: CelebAMask-HQ, or 100,000 of LSUN.
        batch: of MoCo.
        generator: the configuration that has this resolution.
    """

    px: int
    shots: int
    images: int
    batch: int
    generator: AdaName


# section 4.1, appendix D; of 30 released cats two are left out as badly annotated
SIZES: dict[Target, Sizes] = {
    "face34": Sizes(512, 16, 30_000, 32, "paper512"),
    "car20": Sizes(512, 33, 100_000, 32, "paper512"),
    "cat16": Sizes(256, 28, 100_000, 128, "paper256"),
}


def ganorcon(
    target: Target = "face34",
    *,
    method: Literal["moco", "simsiam"] = "moco",
    projector: Literal["mlp", "conv"] = "mlp",
    images: int | None = None,
    distilled: bool = False,
    released: bool = False,
) -> Experiment:
    """Return one row of GanOrCon's tables 2 and 4 (sections 4.1-4.2, appendices B, D).

    The released code (for faces) differs in: projectors train at batch 1, in a fixed order, both
    kinds for 800 epochs at 0.001 (paper: batch 2; CONV 200 epochs at 0.0005); the student sees
    10,001 images for 5 epochs (paper: 10,000 for 2).

    Not in the paper: bf16 in pretraining, and a generator with its search, which the rows of other
    methods in a sweep take; the paper's own are those of :func:`datasetgan`. Not offered: the
    teacher with the lowest *test* loss (code; here the last), an ImageNet trunk in the student.

    Args:
        target: labelled data set.
        method: of pretraining.
        projector: ``conv`` is Model-A at 512 px and Model-B at 256 px.
        images: unlabelled images that an epoch counts; those of the target's own data set if left
            out. Appendix E pretrains on :data:`FFHQ_IMAGES`.
        distilled: score a student in place of the projector.
        released: settings of the released code where they differ.
    """
    sizes = SIZES[target]
    return Experiment(
        data=DataConfig(source=f"{PUBLISHED}{target}", px=sizes.px, shots=sizes.shots),
        pretrain=_pretraining(sizes, method, images or sizes.images),
        project=ProjectionConfig(space="w+", steps=10_000),  # the best of table 3
        fit=_fit(sizes, projector, released=released),
        distilled=distilled,
        label=LabelConfig(images=10_001 if released else 10_000, px=sizes.px),
        student=StudentConfig(
            resolution=sizes.px, epochs=5 if released else 2, checkpoints=5 if released else 2
        ),
        evaluate=EvaluateConfig(px=sizes.px, protocol="five_folds"),
    )


def _pretraining(sizes: Sizes, method: Literal["moco", "simsiam"], images: int) -> RepresentConfig:
    """Appendix D; queue, momentum, head and augmentation are the official codes' defaults."""
    epochs = 800 if method == "moco" else 400
    return RepresentConfig(
        method=method,
        resolution=sizes.px,
        steps=epochs * images // sizes.batch,
        batch=sizes.batch,
        lr=0.03 if method == "moco" else 0.05,
        trunk=TrunkConfig(name="resnet50"),
        precision="bf16",
        gan=stylegan2_ada(sizes.generator),
    )


def _fit(sizes: Sizes, projector: Literal["mlp", "conv"], *, released: bool) -> FitConfig:
    """Appendix D; the Adam beta, the floor of the cosine and the augmentation are the code's."""
    short = projector == "conv" and not released
    epochs, batch = 200 if short else 800, 1 if released else 2
    conv: Literal["conv_a", "conv_b"] = "conv_a" if sizes.px == 512 else "conv_b"
    return FitConfig(
        projector=ProjectorConfig(kind="mlp" if projector == "mlp" else conv),
        resolution=sizes.px,
        steps=epochs * sizes.shots // batch,
        batch=batch,
        lr=5e-4 if short else 1e-3,
        shuffle=not released,
        checkpoints=epochs // CHECKPOINT_EPOCHS,
    )
