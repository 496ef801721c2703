"""The smallest StyleGAN2 training, and what its tests share."""

from __future__ import annotations

import torch

from raysweep import rng
from raysweep.config import override
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.represent.ada_config import AdaConfig
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan_config import GanConfig

BASE = RepresentConfig(
    method="stylegan2",
    gan=GanConfig(
        network=StyleGan2Config(
            resolution=16,
            z_dim=8,
            w_dim=8,
            mapping_layers=1,
            channel_base=64,
            channel_max=8,
            mbstd_group=4,
        ),
        batch=8,
        ema_kimg=0.05,
        ada=AdaConfig(enabled=False),
    ),
)
AUGMENTED = override(
    BASE,
    {
        "gan.ada.enabled": True,
        "gan.ada.initial_p": 0.5,
        "gan.ada.interval": 2,
        "gan.ada.speed_kimg": 0.1,
    },
)
RECORDED = {"kimg", "mirror", "tick_kimg", "measured", "inception", "snapshots"}
"""Fields of GanConfig that the learner does not read, only the loop around it."""
APART = {"gan.network.mbstd_group": 1}  # an image's logit does not depend on the others


def images(count=8, seed=0, px=16):
    shape = (count, 3, px, px)
    return torch.randint(0, 256, shape, generator=rng.generator(seed, "images")).byte()


def advance(learner, steps, start=0):
    count, px = learner.gan.batch, learner.gan.network.resolution
    batches = [images(count, seed=start + step, px=px) for step in range(steps)]
    return [learner.step({"image": batch}) for batch in batches]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)
