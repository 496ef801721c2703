"""The generators that the papers train or download: StyleGAN and StyleGAN2-ADA."""

from __future__ import annotations

from typing import Literal, NamedTuple

from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.represent.ada_config import AdaConfig
from raysweep.represent.gan_config import GanConfig

AdaName = Literal["stylegan2", "paper256", "paper512", "paper1024"]


class _Ada(NamedTuple):
    resolution: int
    batch: int
    lr: float
    r1_gamma: float
    ema_kimg: float
    mbstd_group: int
    channel_base: int


# train.py of stylegan2-ada-pytorch; "stylegan2" takes the data's resolution
_ADA: dict[AdaName, _Ada] = {
    "stylegan2": _Ada(1024, 32, 2e-3, 10.0, 10.0, 4, 32768),
    "paper256": _Ada(256, 64, 2.5e-3, 1.0, 20.0, 8, 16384),
    "paper512": _Ada(512, 64, 2.5e-3, 0.5, 20.0, 8, 32768),
    "paper1024": _Ada(1024, 32, 2e-3, 2.0, 10.0, 4, 32768),
}


def stylegan2_ada(
    name: AdaName = "paper512",
    *,
    resolution: int | None = None,
    augmented: bool = True,
    mirror: bool = True,
) -> GanConfig:
    """StyleGAN2-ADA (2006.06676): a named configuration of the official code.

    All of them: 25,000 kimg, eight mapping layers, R1 every 16 steps, path length 2 every 4, style
    mixing 0.9, half precision in the four highest resolutions.

    Args:
        name: configuration.
        resolution: of the images; that of the configuration's name if left out.
        augmented: adaptive augmentation, which the official code has on unless told otherwise.
        mirror: show mirrored images as well, as the papers do for faces.
    """
    chosen = _ADA[name]
    return GanConfig(
        network=StyleGan2Config(
            resolution=resolution or chosen.resolution,
            channel_base=chosen.channel_base,
            mbstd_group=chosen.mbstd_group,
            half_blocks=4,
        ),
        batch=chosen.batch,
        lr=chosen.lr,
        r1_gamma=chosen.r1_gamma,
        ema_kimg=chosen.ema_kimg,
        mirror=mirror,
        ada=AdaConfig(enabled=augmented),
    )


def stylegan1(
    resolution: Literal[256, 512, 1024], *, released: bool = False, mirror: bool = False
) -> GanConfig:
    """StyleGAN (1812.04948) with its official settings.

    Deviation: the whole network is trained at once at a batch of 32, where the official training
    grows it from 8 px with larger batches.

    Args:
        resolution: of the images; the learning rate goes by it.
        released: the instance norm of the PyTorch port that DatasetGAN and LAGM load.
        mirror: show mirrored images as well, as for faces.
    """
    return GanConfig(
        stylegan1=StyleGan1Config(
            resolution=resolution, instance_norm_eps=1e-5 if released else 1e-8
        ),
        lr=2e-3 if resolution == 256 else 3e-3,
        r1_interval=1,
        path_weight=0.0,
        mirror=mirror,
    )
