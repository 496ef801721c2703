"""A small projector on a thin trunk, its images, and what its tests share."""

import torch

from raysweep import rng
from raysweep.features.representation import TrunkFeatures
from raysweep.fewshot.projector import FitConfig, ProjectorFit, fit_batch
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.resnet import TrunkConfig, build_trunk

CLASSES = 3
BASE = FitConfig(
    projector=ProjectorConfig(widths=(8, 6)), resolution=16, steps=12, batch=2, checkpoints=4
)


def photos(count=4, height=20, width=24, seed=0):
    generator = rng.generator(seed, "photos")
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).byte()


def blobs(count=4, height=20, width=24, seed=0):
    """Masks of mostly background with a large and a tiny class."""
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    corners = torch.randint(0, 8, (count, 2), generator=rng.generator(seed, "blobs")).tolist()
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + 11, x : x + 9] = 1
        mask[y : y + 5, x + 11 : x + 16] = 2  # 25 px
    return masks


def thin_features():
    with rng.seeded(0, "trunk"):
        return TrunkFeatures(build_trunk(TrunkConfig(width=4)))


def learner_of(config, *, representation=None, **options):
    representation = representation or thin_features()
    options = {"num_classes": CLASSES, "device": "cpu"} | options
    return ProjectorFit(config, representation=representation, **options)


def advance(learner, steps):
    images, masks = photos(), blobs()
    logged = []
    for _ in range(steps):
        batch = fit_batch(images, masks, step=learner.steps_taken, config=learner.config)
        logged.append(learner.step(batch))
    return logged


def trace(config, steps=3, **options):
    return [float(scalars["loss"]) for scalars in advance(learner_of(config, **options), steps)]
