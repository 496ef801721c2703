"""The smallest training of every learner that takes its steps in parts, and how to compare two."""

import contextlib
from unittest import mock

import torch
from torch import nn

from raysweep import collective, micro, rng
from raysweep.config import override
from raysweep.data.joint import JointConfig
from raysweep.distill.soft import quantise_soft
from raysweep.distill.student import Student
from raysweep.distill.student_config import StudentConfig
from raysweep.features.representation import RawColour
from raysweep.fewshot.projector import FitConfig, ProjectorFit
from raysweep.learner import identity
from raysweep.nets.deeplab import ThinConfig
from raysweep.nets.projectors import ProjectorConfig
from raysweep.nets.resnet import TrunkConfig
from raysweep.nets.unet import UnetConfig
from raysweep.represent.config import MocoConfig, RepresentConfig, SimsiamConfig
from raysweep.represent.gan import Gan
from raysweep.represent.moco import Moco
from raysweep.represent.simsiam import Simsiam
from tests.represent import gan_cases

CLASSES = 3
STUDENT = StudentConfig(
    network="deeplab_thin",
    thin=ThinConfig(trunk_width=4, head_width=6, rates=(1, 2)),
    unet=UnetConfig(widths=(3, 4)),
    resolution=16,
    batch=7,
    loss="soft",
    clip_value=0.01,
    augment=JointConfig(),
)
FIT = FitConfig(
    projector=ProjectorConfig(kind="cnn", widths=(6, 4), norm="none"),
    resolution=16,
    steps=12,
    batch=7,
)
CONTRASTIVE = RepresentConfig(
    trunk=TrunkConfig(width=4),
    moco=MocoConfig(dim=8, hidden=16, queue=48, head_batch_norm=True),
    simsiam=SimsiamConfig(dim=16, predictor_hidden=8),
    optimizer="adamw",
    lr=1e-3,
    steps=40,
    batch=12,
    resolution=16,
    bn_groups=4,
)
GAN = override(
    gan_cases.AUGMENTED,
    {"gan.batch": 10, "gan.path_interval": 2, "gan.r1_interval": 2, "gan.path_decay": 0.3}
    | gan_cases.APART,
)
GAN1 = override(
    GAN,
    {
        "method": "stylegan1",
        "gan.path_weight": 0.0,
        "gan.stylegan1.resolution": 16,
        "gan.stylegan1.z_dim": 8,
        "gan.stylegan1.w_dim": 8,
        "gan.stylegan1.mapping_layers": 1,
        "gan.stylegan1.channel_base": 32,
        "gan.stylegan1.channel_max": 8,
        "gan.stylegan1.mbstd_group": 1,
    },
)


@contextlib.contextmanager
def float64():
    """Let the learners compute in double precision, where they ask for single as well."""
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def build(config, wrap=identity):
    if isinstance(config, StudentConfig):
        return Student(config, num_classes=CLASSES, device="cpu", wrap=wrap)
    if isinstance(config, FitConfig):
        return ProjectorFit(
            config, representation=RawColour(), num_classes=CLASSES, device="cpu", wrap=wrap
        )
    if config.trains_generator:
        return Gan(config, device="cpu")
    return {"moco": Moco, "simsiam": Simsiam}[config.method](config, device="cpu", wrap=wrap)


def batch_at(step, config):
    """This worker's rows of a batch that every learner finds its inputs in."""
    count = config.images_per_step if isinstance(config, RepresentConfig) else config.batch
    generator = rng.generator(0, "batch", step)
    image = torch.randint(0, 256, (count, 3, 16, 16), generator=generator).byte()
    logits = 3 * torch.randn(count, CLASSES, 16, 16, generator=generator)
    soft = quantise_soft(logits.softmax(1), top=2)
    batch = {"image": image, "input": image, "mask": logits.argmax(1).byte(), "soft": soft}
    return {name: value[collective.own(count)] for name, value in batch.items()}


def trained(config, parts, *, steps=3, evaluating=False, wrap=identity):
    """Return the learner and what it logged."""
    with float64(), micro.batches(parts):
        learner = build(config, wrap)
        if evaluating:
            for net in vars(learner).values():
                for module in net.modules() if isinstance(net, nn.Module) else ():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        rows = [learner.step(batch_at(step, config)) for step in range(steps)]
    return learner, [{name: value.item() for name, value in row.items()} for row in rows]


def leaves(state, path=""):
    """Return the numbers of a state by their place in it."""
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        found = [leaves(value, f"{path}/{key}") for key, value in pairs]
        return {name: leaf for each in found for name, leaf in each.items()}
    if isinstance(state, torch.Tensor | int | float):
        return {path: torch.as_tensor(state, dtype=torch.float64)}
    return {}


def assert_alike(ours, theirs, *, without=()):
    """Compare states, apart from what has one of the words in its name."""
    ours, theirs = (
        {name: leaf for name, leaf in leaves(state).items() if not any(w in name for w in without)}
        for state in (ours, theirs)
    )
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        torch.testing.assert_close(
            leaf, theirs[name], atol=1e-6, rtol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
