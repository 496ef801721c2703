"""The published settings, one function per paper: for GPUs and for the published data."""

from __future__ import annotations

from raysweep.distill.labelling import LabelConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.experiment import DataConfig, EvaluateConfig, Experiment
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan_config import GanConfig


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
