"""Named experiments: one function per preset, with its cost and what to expect.

``smoke`` runs in seconds and proves only that the parts fit together. ``demo`` gives meaningful
results on two CPU cores in minutes. ``paper`` holds the published settings, for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from raysweep.config import Config, ConfigError
from raysweep.data.augment import ViewConfig
from raysweep.data.builtin import BuiltinConfig
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.shards import ShardsConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.nets.unet import UnetConfig
from raysweep.represent.ada_config import AdaConfig
from raysweep.represent.config import MocoConfig, RepresentConfig
from raysweep.represent.gan_config import GanConfig


class DataConfig(Config):
    """Which images, and how many of them carry labels.

    Attributes:
        source: ``face`` or ``car`` (built in), a folder of images and masks, or a Parquet dataset.
        px: side in pixels at which images are read (squares, as in the papers).
        shots: number of labelled training images.
        draw: which draw of the labelled subset; draw 0 follows the dataset's own order, if any.
        builtin: what to render when ``source`` is built in.
    """

    source: str = "face"
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
        absent: what a class counts that occurs neither in truth nor prediction: ``zero`` as in
            the papers, or ``skip``.
        images: number of fixed test images in the picture of predictions.
    """

    px: int = Field(64, gt=0)
    protocol: Literal["held_out", "five_folds"] = "held_out"
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


def smoke() -> Experiment:
    """Seconds per stage; checks the mechanics, its scores mean nothing."""
    return Experiment(
        data=DataConfig(
            px=32, shots=4, builtin=BuiltinConfig(px=32, unlabelled=64, train=8, val=6, test=10)
        ),
        pretrain=RepresentConfig(
            resolution=16,
            steps=20,
            batch=16,
            trunk=TrunkConfig(width=8),
            moco=MocoConfig(dim=16, hidden=32, queue=64, momentum=0.99),
            gan=GanConfig(
                network=StyleGan2Config(
                    resolution=16,
                    z_dim=8,
                    w_dim=8,
                    mapping_layers=1,
                    channel_base=64,
                    channel_max=8,
                ),
                kimg=0.32,
                batch=16,
                ema_kimg=0.1,
                tick_kimg=0.16,
                measured=64,
                ada=AdaConfig(initial_p=0.1),
            ),
        ),
        project=ProjectionConfig(space="w+", steps=4, mean_samples=64, optimise_noise=False),
        fit=FitConfig(
            resolution=16,
            steps=20,
            batch=4,
            checkpoints=2,
            projector=ProjectorConfig(widths=(16, 16), standardise=True),
        ),
        label=LabelConfig(images=40, px=32, shards=ShardsConfig(rows_per_file=16)),
        student=StudentConfig(
            network="unet", unet=UnetConfig(widths=(4, 8)), resolution=16, batch=8, epochs=4
        ),
        evaluate=EvaluateConfig(px=32, images=4),
    )


def demo() -> Experiment:
    """Minutes on two CPU cores; pretrained features beat random weights, both beat raw colour.

    The recipe is scaled to small images and a thin trunk: batch norm in the head, a short queue and
    a fast momentum encoder, because there are 200,000 samples and not the paper's 24 million. The
    generator and the student work at 32 px; students see the labels of 2,000 images ten times.
    """
    return Experiment(
        data=DataConfig(px=64, shots=16, builtin=BuiltinConfig(px=64)),
        pretrain=RepresentConfig(
            resolution=32,
            steps=2000,
            batch=128,
            bn_groups=4,
            trunk=TrunkConfig(width=16),
            views=ViewConfig(blur_sigma=(0.1, 1.2)),
            moco=MocoConfig(dim=64, hidden=256, head_batch_norm=True, queue=2048, momentum=0.99),
            gan=GanConfig(
                network=StyleGan2Config(
                    resolution=32,
                    z_dim=64,
                    w_dim=64,
                    mapping_layers=3,
                    channel_base=512,
                    channel_max=64,
                ),
                kimg=160.0,
                lr=3e-3,
                r1_gamma=0.3,
                path_weight=0.0,
                mixing=0.5,
                ema_kimg=2.0,
                ema_rampup=0.05,
                mirror=True,
                tick_kimg=8.0,
                measured=1000,
            ),
        ),
        project=ProjectionConfig(
            space="w+", steps=150, lr=0.05, mean_samples=2000, optimise_noise=False
        ),
        fit=FitConfig(
            resolution=64,
            steps=400,
            batch=4,
            lr=3e-3,
            projector=ProjectorConfig(widths=(128, 64), standardise=True),
        ),
        label=LabelConfig(images=2000, px=64),
        student=StudentConfig(
            network="unet",
            unet=UnetConfig(widths=(16, 32, 64, 64)),
            resolution=32,
            batch=16,
            epochs=10,
            lr=2e-3,
            checkpoints=2,
        ),
        evaluate=EvaluateConfig(px=64),
    )


def paper() -> Experiment:
    """GanOrCon (CVPR 2022), sections 4.1-4.2 and appendices B, D: MoCo v2 and an MLP projector.

    800 epochs of 30,000 images at batch 32 and 512 px; the paper reports seven days on four
    1080 Ti for a set of 70,000. Expected on Face34, MoCo + MLP direct: 0.516 mIoU. Distilled into
    DeepLabV3-ResNet101 on 10,000 images for 2 epochs (DatasetGAN: 20); its trunk starts from random
    weights here, from ImageNet's in the papers.
    """
    return Experiment(
        data=DataConfig(px=512, shots=16),
        pretrain=RepresentConfig(
            resolution=512,
            steps=800 * 30_000 // 32,
            batch=32,
            optimizer="sgd",
            lr=0.03,
            warmup_steps=0,
            trunk=TrunkConfig(name="resnet50"),
            precision="bf16",
            # the official configuration "paper512"
            gan=GanConfig(
                network=StyleGan2Config(
                    resolution=512, channel_base=16384, mbstd_group=8, half_blocks=4
                ),
                batch=64,
                lr=2.5e-3,
                r1_gamma=0.5,
                ema_kimg=20.0,
                mirror=True,
            ),
        ),
        project=ProjectionConfig(space="w+", steps=10_000),
        fit=FitConfig(resolution=512, steps=800 * 16 // 2, batch=2, lr=1e-3, checkpoints=40),
        label=LabelConfig(images=10_000, px=512),
        student=StudentConfig(),
        evaluate=EvaluateConfig(px=512, protocol="five_folds"),
    )


PRESETS: dict[str, Callable[[], Experiment]] = {"smoke": smoke, "demo": demo, "paper": paper}
