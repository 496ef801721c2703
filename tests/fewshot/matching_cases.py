"""The smallest gradient matching, and what its tests share."""

from __future__ import annotations

import torch

from raysweep import rng
from raysweep.config import override
from raysweep.features.generator import pack
from raysweep.fewshot.gradient_matching import GradientMatching
from raysweep.fewshot.matching_config import Labelled, MatchingConfig
from raysweep.fewshot.matching_inputs import matching_batch
from raysweep.fewshot.segmentors import SegmentorConfig
from raysweep.nets.deeplab import ThinConfig
from raysweep.nets.fpn import FpnConfig
from raysweep.nets.stylegan2 import Generator, StyleGan2Config
from raysweep.nets.unet import UnetConfig

CLASSES = 3
GAN = StyleGan2Config(
    resolution=16, z_dim=4, w_dim=4, mapping_layers=1, channel_base=64, channel_max=8
)
BASE = MatchingConfig(
    annotator=FpnConfig(width=4),
    segmentor=SegmentorConfig(
        network="unet",
        unet=UnetConfig(widths=(3, 4, 5)),
        thin=ThinConfig(trunk_width=2, head_width=4, rates=(1,)),
    ),
    block="u1",
    annotator_lr=0.1,
    segmentor_lr=0.1,
    clean_pixels=0,
    steps=8,
    checkpoints=1,
)
DEEPLAB = override(BASE, {"segmentor.network": "deeplab_thin", "block": "head"})


def generator(config=GAN):
    with rng.seeded(0, "generator"):
        net = Generator(config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
        net.mapping.w_avg.normal_(generator=rng.generator(0, "w_avg"))
    return net.eval()


def labelled(count=5, px=16, config=BASE):
    stream = rng.generator(0, "labelled")
    masks = torch.zeros(count, px, px, dtype=torch.uint8)
    masks[:, : px // 2] = 1
    for at in range(count):
        masks[at, 2 : 4 + at, 1:5] = 2  # 2 to 6 rows: few pixels
    if config.objective == "inversion":
        ws = torch.randn(count, GAN.num_ws, GAN.w_dim, generator=stream)
        return Labelled(pack(ws, None), masks)
    images = torch.randint(0, 200, (count, 3, px, px), generator=stream).byte()
    return Labelled(images + 20 * masks[:, None], masks)


def learner(config=BASE, **more):
    given = {"generator": generator(), "labelled": labelled(config=config), "device": "cpu"}
    return GradientMatching(config, num_classes=CLASSES, **given | more)


def advance(learner, steps, start=0):
    own, config = labelled(config=learner.config), learner.config
    return [
        learner.step(matching_batch(own, step=step, config=config))
        for step in range(start, start + steps)
    ]


def tensors(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
