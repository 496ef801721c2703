"""ReGAN (Tritrong et al., Repurposing GANs, CVPR 2021): dilated convolutions on StyleGAN2."""

from __future__ import annotations

from typing import Any, Literal

from raysweep.data.joint import JointConfig
from raysweep.data.published.wanted import PUBLISHED
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.student_config import StudentConfig
from raysweep.experiment import DataConfig, EvaluateConfig, Experiment
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.fewshot.projector import FitConfig
from raysweep.nets.cnn import ReganKind
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.paper_presets.stylegan import stylegan2_ada
from raysweep.represent.config import RepresentConfig

CLASSES = 10
KINDS: dict[str, ReganKind] = {
    "mlp": "regan_mlp",
    "s": "regan_s",
    "m": "regan_m",
    "l": "regan_l",
}


def regan(
    size: Literal["mlp", "s", "m", "l"] = "l", *, shots: int = 1, released: bool = False
) -> Experiment:
    """Return ReGAN on ten classes of CelebAMask-HQ (2103.04379 and its released code).

    The released code holds size L only, with a first convolution of 1x1, and trains 1000 epochs
    with a learning rate that falls by 0.9 every 50; without it the sizes and schedule of an
    unofficial port: 100 epochs, the rate divided by 10. Deviation: both fall as a cosine to the
    same last value. The student is the released code's in both.

    Not offered: rotation, translation and scaling of the student's images (it mirrors them), area
    averaging of maps larger than 512 px.

    Args:
        size: of the network; ``mlp`` as GanOrCon states it.
        shots: labelled images.
        released: network of size L and schedule of the released code.
    """
    gan = stylegan2_ada("stylegan2", augmented=False)
    kind = "regan_l_released" if released and size == "l" else KINDS[size]
    epochs = 1000 if released else 100
    return Experiment(
        data=DataConfig(source=f"{PUBLISHED}celebamask10", px=512, shots=shots),
        pretrain=RepresentConfig(method="stylegan2", gan=gan),
        project=ProjectionConfig(space="w+"),  # its projector's defaults
        fit=FitConfig(
            projector=ProjectorConfig(kind=kind),
            layers=feature_layers(gan.network),
            resolution=512,
            steps=epochs * shots,
            batch=1,
            beta1=0.9,
            weight_decay=1e-3,
            lr_floor=0.9**20 if released else 0.1,
            augment=JointConfig(crop_p=0.0, jitter_p=0.0, flip_p=0.0),
            checkpoints=epochs // 50,
        ),
        distilled=True,
        label=LabelConfig(source="generated", images=5000, px=512, soft=CLASSES),
        student=_student(),
        evaluate=EvaluateConfig(px=512),
    )


def feature_layers(config: StyleGan2Config) -> tuple[str, ...]:
    """Name the convolutions that are the features, fine to coarse: all but that of 4 px."""
    sides = config.resolutions[:0:-1]
    return tuple(f"synthesis.b{side}.conv{index}" for side in sides for index in (1, 0))


def sweep_changes(config: StyleGan2Config, *, shots: int) -> dict[str, Any]:
    """Return the settings of the few-shot training, as changes of another experiment."""
    fit = regan(shots=shots, released=True).fit
    same = ("steps", "batch", "lr", "beta1", "weight_decay", "lr_floor", "checkpoints")
    changes: dict[str, Any] = {f"fit.{name}": getattr(fit, name) for name in same}
    off = {f"fit.augment.{name}": 0.0 for name in ("crop_p", "jitter_p", "flip_p")}
    return changes | off | {"fit.layers": list(feature_layers(config))}


def _student() -> StudentConfig:
    """Auto-shot: a U-Net on soft labels, up to 1000 epochs, the rate lowered on a plateau."""
    return StudentConfig(
        network="unet",
        batch=32,
        epochs=1000,
        weight_decay=1e-3,
        loss="soft",
        clip_value=0.1,
        plateau_patience=20,
        augment=JointConfig(crop_p=0.0, jitter_p=0.0, flip_p=0.5),
        checkpoints=20,
    )
