"""A small student, its batches, and what its tests share."""

import torch
from torch import nn

from raysweep import rng
from raysweep.config import to_dict
from raysweep.data.joint import JointConfig
from raysweep.distill.soft import quantise_soft
from raysweep.distill.student import Student
from raysweep.distill.student_config import StudentConfig
from raysweep.nets.deeplab import ThinConfig
from raysweep.nets.unet import UnetConfig

CLASSES = 3
BASE = StudentConfig(
    network="deeplab_thin",
    thin=ThinConfig(trunk_width=4, head_width=6, rates=(1, 2)),
    unet=UnetConfig(widths=(3, 4, 5)),
    resolution=16,
    batch=4,
    lr=0.01,
)
UNET = {"network": "unet"}
MOVED = {"augment": to_dict(JointConfig())}
SOFT = {"loss": "soft"}


def batch_of(step=0, *, count=4, height=20, width=24):
    """A dark and a bright class on a background, in noise, with soft labels."""
    generator = rng.generator(0, "batch", step)
    corners = torch.randint(0, 8, (count, 2), generator=generator).tolist()
    mask = torch.zeros(count, height, width, dtype=torch.uint8)
    for one, (y, x) in zip(mask, corners, strict=True):
        one[y : y + 9, x : x + 8] = 1
        one[y : y + 9, x + 8 : x + 16] = 2
    palette = torch.tensor([[120, 120, 120], [40, 60, 30], [210, 200, 220]])
    noise = torch.randint(-20, 21, (count, height, width, 3), generator=generator)
    image = (palette[mask.long()] + noise).permute(0, 3, 1, 2).byte().contiguous()
    logits = 5 * nn.functional.one_hot(mask.long(), CLASSES).permute(0, 3, 1, 2).float()
    logits = logits + torch.randn(logits.shape, generator=generator)
    return {"image": image, "mask": mask, "soft": quantise_soft(logits.softmax(1), top=2)}


def student_of(config, **options):
    return Student(config, **({"num_classes": CLASSES, "device": "cpu"} | options))


def advance(learner, steps):
    return [learner.step(batch_of(learner.steps_taken)) for _ in range(steps)]


def trace(config, steps=3, **options):
    return [float(scalars["loss"]) for scalars in advance(student_of(config, **options), steps)]
