"""Small checkpoints in the three foreign layouts."""

import torch

from raysweep import rng
from raysweep.nets import stylegan1, stylegan2, stylegan2_discriminator
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import StyleGan2Config
from tests.reference import rosinality
from tests.represent.official_pickles import write_official

SECOND = StyleGan2Config(
    resolution=32, z_dim=6, w_dim=6, mapping_layers=2, channel_base=128, channel_max=10
)
FIRST = StyleGan1Config(
    resolution=16,
    z_dim=3,
    w_dim=4,
    mapping_layers=2,
    channel_base=16,
    channel_max=4,
    instance_norm_eps=1e-5,
)


def normal(*shape, name="x"):
    return torch.randn(shape, generator=rng.generator(0, name))


def filled(module, name):
    """Every parameter and buffer drawn anew, but for the low-pass kernels."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if "filter" not in key and "kernel" not in key:
                tensor.copy_(normal(*tensor.shape, name=f"{name}/{key}"))
    return module


def second(name, config=SECOND):
    return filled(stylegan2.Generator(config), name)


def official(path, *, config=SECOND, init_kwargs=None, **changed):
    networks = {
        "G": second("g", config),
        "D": filled(stylegan2_discriminator.Discriminator(config), "d"),
        "G_ema": second("ema", config),
    }
    return networks, write_official(path, networks | changed, init_kwargs=init_kwargs)


def counter(start=0):
    numbers = iter(range(start, 10**6))
    return lambda *shape: normal(*shape, name=next(numbers))


def rosinality_parts(start=0, config=SECOND):
    sizes = {"resolution": config.resolution, "channels": config.channels}
    generator = rosinality.random_generator(
        counter(start), dim=config.w_dim, layers=config.mapping_layers, **sizes
    )
    return generator, rosinality.random_discriminator(counter(start + 10**5), **sizes)


def saved(path, content):
    torch.save(content, path)
    return path


def port():
    state = filled(stylegan1.Generator(FIRST), "port").state_dict()
    state["g_mapping.w_avg"].zero_()
    return dict(state)
