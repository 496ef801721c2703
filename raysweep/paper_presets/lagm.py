"""LAGM (Yang et al., Learning to Annotate Part Segmentation with Gradient Matching, ICLR 2022)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from raysweep.fewshot.matching_config import MatchingConfig
from raysweep.fewshot.segmentors import SegmentorConfig
from raysweep.paper_presets.stylegan import AdaName, stylegan2_ada
from raysweep.represent.gan_config import GanConfig

Target = Literal["celeba", "pascal_horse", "pascal_aeroplane", "cat16", "face34", "car20", "cgpart"]
STEPS, SNAPSHOT = 150_000, 4_000  # 200 ticks of 20 steps
FOLD_SNAPSHOTS = 20


class Sizes(NamedTuple):
    """What depends on the labelled data set (configs/* of the released code).

    Attributes:
        px: side of the segmentor's images.
        cutoff: truncated rows of w.
        folds: whether five folds choose among the last snapshots, not a validation set among all.
        generator: the official configuration that the generator was trained with.
        augmented: whether with adaptive augmentation.
    """

    px: int
    cutoff: int
    folds: bool
    generator: AdaName
    augmented: bool = True


SIZES: dict[Target, Sizes] = {
    "celeba": Sizes(256, 8, False, "paper256"),
    "pascal_horse": Sizes(256, 7, False, "stylegan2", augmented=False),
    "pascal_aeroplane": Sizes(256, 7, False, "stylegan2", augmented=False),
    "cat16": Sizes(256, 7, True, "paper256"),
    "face34": Sizes(512, 8, True, "paper512"),
    "car20": Sizes(512, 8, True, "stylegan2", augmented=False),
    "cgpart": Sizes(256, 8, False, "stylegan2", augmented=False),
}


def lagm(
    target: Target = "celeba",
    *,
    segmentor: Literal["deeplab", "unet"] = "deeplab",
    released: bool = False,
) -> MatchingConfig:
    """Return the training of the annotator (2211.02003 and its released code).

    Batch 2 of labelled and of generated images, SGD 0.001 with momentum 0.9 and no schedule for
    both networks, 150,000 steps, truncation 0.7. Gradients of DeepLab's head or of the whole U-Net
    are matched. The paper averages the distance over matched layers; the released code divides by
    the number of all tensors, which rescales the annotator's steps.

    Deviation: for five folds 20 candidates are spread over the training, where the paper keeps the
    last 20 of 37.

    Args:
        target: labelled data set.
        segmentor: which network.
        released: the distance of the released code.
    """
    sizes = SIZES[target]
    deeplab = segmentor == "deeplab"
    return MatchingConfig(
        segmentor=SegmentorConfig(network="deeplab_resnet101" if deeplab else "unet"),
        block="head" if deeplab else "all",
        normaliser="released" if released else "paper",
        psi=0.7,
        cutoff=sizes.cutoff,
        resolution=sizes.px,
        clean_pixels=30,
        steps=STEPS,
        checkpoints=FOLD_SNAPSHOTS if sizes.folds else STEPS // SNAPSHOT,
    )


def lagm_generator(target: Target = "celeba") -> GanConfig:
    """Return the StyleGAN2 whose maps are annotated (section 4, configs/*).

    Horses, cars and cats are published checkpoints, aeroplanes were stopped after 13,200 kimg.
    """
    sizes = SIZES[target]
    cars = target in ("car20", "cgpart")
    gan = stylegan2_ada(
        sizes.generator,
        resolution=512 if cars else sizes.px,
        augmented=sizes.augmented,
        mirror=target in ("celeba", "face34"),
    )
    return gan.model_copy(update={"kimg": 13_200.0}) if target == "pascal_aeroplane" else gan
