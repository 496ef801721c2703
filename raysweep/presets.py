"""Named experiments: one function per preset, with its cost and what to expect.

``smoke`` runs in seconds and proves only that the parts fit together. ``demo`` gives meaningful
results on two CPU cores in minutes. ``paper`` holds the published settings, for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable

from raysweep.data.augment import ViewConfig
from raysweep.data.builtin import BuiltinConfig
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.shards import ShardsConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.experiment import DataConfig, EvaluateConfig, Experiment
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.nets.unet import UnetConfig
from raysweep.paper_presets import paper
from raysweep.represent.ada_config import AdaConfig
from raysweep.represent.config import MocoConfig, RepresentConfig
from raysweep.represent.gan_config import GanConfig


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


PRESETS: dict[str, Callable[[], Experiment]] = {"smoke": smoke, "demo": demo, "paper": paper}
