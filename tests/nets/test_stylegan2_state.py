"""Official names and shapes, and what each setting does to them."""

import pydantic
import pytest
import torch

from raysweep.config import ConfigError, override
from raysweep.nets.stylegan2 import Generator, StyleGan2Config
from raysweep.nets.stylegan2_discriminator import Discriminator
from raysweep.nets.stylegan2_layers import SynthesisLayer
from tests.nets.stylegan2_cases import TINY, seeded


def conv_shapes(name, out, wide, kernel, *, bias=True):
    shapes = {f"{name}.weight": (out, wide, kernel, kernel), f"{name}.resample_filter": (4, 4)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def layer_shapes(name, out, wide, side, w_dim):
    return {
        **conv_shapes(name, out, wide, 3),
        f"{name}.noise_const": (side, side),
        f"{name}.noise_strength": (),
        f"{name}.affine.weight": (wide, w_dim),
        f"{name}.affine.bias": (wide,),
    }


def generator_shapes(resolution, channels, *, layers=8, dim=512):
    shapes = {"mapping.w_avg": (dim,), "synthesis.b4.const": (channels[4], 4, 4)}
    for index in range(layers):
        shapes[f"mapping.fc{index}.weight"] = (dim, dim)
        shapes[f"mapping.fc{index}.bias"] = (dim,)
    side = 4
    while side <= resolution:
        name, out = f"synthesis.b{side}", channels[side]
        shapes[f"{name}.resample_filter"] = (4, 4)
        if side > 4:
            shapes |= layer_shapes(f"{name}.conv0", out, channels[side // 2], side, dim)
        shapes |= layer_shapes(f"{name}.conv1", out, out, side, dim)
        shapes[f"{name}.torgb.weight"] = (3, out, 1, 1)
        shapes[f"{name}.torgb.bias"] = (3,)
        shapes[f"{name}.torgb.affine.weight"] = (out, dim)
        shapes[f"{name}.torgb.affine.bias"] = (out,)
        side *= 2
    return shapes


def discriminator_shapes(resolution, channels):
    shapes, side = conv_shapes(f"b{resolution}.fromrgb", channels[resolution], 3, 1), resolution
    while side > 4:
        name, wide, out = f"b{side}", channels[side], channels[side // 2]
        shapes[f"{name}.resample_filter"] = (4, 4)
        shapes |= conv_shapes(f"{name}.conv0", wide, wide, 3)
        shapes |= conv_shapes(f"{name}.conv1", out, wide, 3)
        shapes |= conv_shapes(f"{name}.skip", out, wide, 1, bias=False)
        side //= 2
    shapes |= conv_shapes("b4.conv", channels[4], channels[4] + 1, 3)
    shapes |= {"b4.fc.weight": (channels[4], channels[4] * 16), "b4.fc.bias": (channels[4],)}
    return shapes | {"b4.out.weight": (1, channels[4]), "b4.out.bias": (1,)}


# paper's widths: fmaps 1
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


@pytest.mark.parametrize("resolution", [32, 1024])
def test_names_and_shapes_of_the_official_state(resolution):
    config = StyleGan2Config(resolution=resolution)
    with torch.device("meta"):
        nets = Generator(config), Discriminator(config)
    expected = generator_shapes(resolution, WIDTHS), discriminator_shapes(resolution, WIDTHS)
    for net, shapes in zip(nets, expected, strict=True):
        assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == shapes


def test_buffers_of_the_official_state_are_not_trained():
    names = {"w_avg", "noise_const", "resample_filter"}
    for net in (seeded(Generator), seeded(Discriminator)):
        trained = {name.rpartition(".")[2] for name, _ in net.named_parameters()}
        buffers = {name.rpartition(".")[2] for name, _ in net.named_buffers()}
        assert buffers <= names
        assert not trained & names


@pytest.mark.parametrize(
    ("resolution", "rows"), [(32, 8), (64, 10), (128, 12), (256, 14), (512, 16), (1024, 18)]
)
def test_rows_of_w(resolution, rows):
    assert StyleGan2Config(resolution=resolution).num_ws == rows


@pytest.mark.parametrize(
    ("base", "resolution", "total"),
    [
        (32768, side, total)
        for side, total in [
            (32, 3584),
            (64, 4608),
            (128, 5120),
            (256, 5376),
            (512, 5504),
            (1024, 5568),
        ]
    ]
    + [(16384, 256, 4480), (16384, 512, 4544), (16384, 1024, 4576)],
)
def test_channels_of_all_convolutions(base, resolution, total):
    config = StyleGan2Config(resolution=resolution, channel_base=base)
    with torch.device("meta"):
        net = Generator(config)
    layers = [module for module in net.modules() if isinstance(module, SynthesisLayer)]
    assert sum(len(layer.weight) for layer in layers) == total


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 48}, "resolution = 48: take a power of two"),
        ({"resolution": 8}, "resolution"),
        ({"resolution": 2048}, "resolution"),
        ({"channel_base": 16, "resolution": 32}, "channel_base = 16: less than one channel"),
        ({"half_blocks": 3}, "half_blocks = 3: take 0 to 2"),
        ({"mapping_layers": 0}, "mapping_layers"),
        ({"mbstd_group": 0}, "mbstd_group"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(TINY, changes)
    with pytest.raises(pydantic.ValidationError, match=message):
        StyleGan2Config(**(TINY.model_dump() | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 32},
        {"z_dim": 7},
        {"w_dim": 7},
        {"mapping_layers": 3},
        {"channel_base": 32},
        {"channel_max": 7},
    ],
)
def test_sizes_change_the_parameters(changes):
    def shapes(config):
        nets = seeded(Generator, config), seeded(Discriminator, config)
        return [{name: t.shape for name, t in net.state_dict().items()} for net in nets]

    assert shapes(override(TINY, changes))[0] != shapes(TINY)[0]
