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
from raysweep.fewshot.matching_config import MatchingConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.fewshot.segmentors import SegmentorConfig
from raysweep.nets.deeplab import ThinConfig
from raysweep.nets.fpn import FpnConfig
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.nets.unet import UnetConfig
from raysweep.paper_presets import lagm, lagm_generator, paper
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


def matching_smoke() -> Experiment:
    """Gradient matching for the mechanics; its scores mean nothing."""
    return _matching(
        smoke(),
        MatchingConfig(
            annotator=FpnConfig(width=8, depth=2),
            segmentor=SegmentorConfig(
                network="deeplab_thin",
                thin=ThinConfig(trunk_width=8, head_width=8, rates=(1, 2), output_stride=4),
                unet=UnetConfig(widths=(4, 8)),
            ),
            pretrain_steps=2,
            labelled_batch=4,
            generated_batch=4,
            clean_pixels=2,
            steps=6,
            checkpoints=2,
        ),
        shots=4,
    )


def matching_demo() -> Experiment:
    """Gradient matching with 8 labelled images, for two CPU cores; see the README for its results.

    Against the paper: 32 px, a thin DeepLabV3 of output stride 2 on the trunk of :func:`demo`, Adam
    with learning rates that fall, batches of 8, hundreds of steps in place of 150,000.
    """
    return _matching(
        demo(),
        MatchingConfig(
            annotator=FpnConfig(width=32),
            segmentor=SegmentorConfig(
                network="deeplab_thin",
                thin=ThinConfig(output_stride=2),
                unet=UnetConfig(widths=(16, 32, 64, 64)),
            ),
            pretrain_steps=300,
            annotator_lr=2e-3,
            segmentor_lr=1e-3,
            optimizer="adam",
            lr_floor=0.02,
            labelled_batch=8,
            generated_batch=8,
            clean_pixels=4,
            steps=400,
            checkpoints=8,
        ),
        shots=8,
    )


def matching_paper() -> Experiment:
    """LAGM on CelebA, 8 classes; expected with 10 labels: 74.4 percent (figure 2).

    Deviation: the segmentor starts from random weights, in the paper from ImageNet's.
    """
    generator = lagm_generator("celeba")
    return Experiment(
        data=DataConfig(source="published:celeba", px=256, shots=10),
        pretrain=RepresentConfig(method="stylegan2", gan=generator),
        project=ProjectionConfig(space="w+"),
        trunk=None,
        fit=FitConfig(method="matching", matching=lagm("celeba"), resolution=256),
        label=LabelConfig(source="generated", images=10_000, px=256, psi=0.7),
        student=StudentConfig(resolution=256, epochs=20),
        evaluate=EvaluateConfig(px=256),
    )


def _matching(base: Experiment, matching: MatchingConfig, *, shots: int) -> Experiment:
    """Return a preset with an annotator on its generator, whose segmentor starts from its trunk."""
    px = base.pretrain.gan.network.resolution
    return base.model_copy(
        update={
            "data": base.data.model_copy(update={"shots": shots}),
            "pretrain": base.pretrain.model_copy(update={"method": "stylegan2"}),
            "trunk": base.pretrain.model_copy(update={"method": "moco"}),
            "fit": base.fit.model_copy(
                update={"method": "matching", "matching": matching, "resolution": px}
            ),
            "label": base.label.model_copy(update={"source": "generated"}),
        }
    )


PRESETS: dict[str, Callable[[], Experiment]] = {"smoke": smoke, "demo": demo, "paper": paper}

MATCHING: dict[str, Callable[[], Experiment]] = {
    "smoke": matching_smoke,
    "demo": matching_demo,
    "paper": matching_paper,
}
"""Of the sweeps in which an annotator is trained by matching gradients."""
