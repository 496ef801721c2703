import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.features.generator import GeneratorFeatures, pack
from raysweep.fewshot.generated import GeneratedImages, block_outputs
from raysweep.nets import stylegan1
from raysweep.nets.stylegan1 import StyleGan1Config
from tests.fewshot.matching_cases import GAN, generator


def made(seed=0, name="segmentor", step=0, count=4, net=None, **more):
    settings = {"layers": None, "psi": 0.7, "cutoff": None} | more
    source = GeneratedImages(net or generator(), seed=seed, **settings)
    return source.draw(name, step, count=count)


def test_one_map_per_resolution_from_fine_to_coarse():
    images, levels = made()
    assert images.shape == (4, 3, 16, 16)
    assert [tuple(level.shape[1:]) for level in levels] == [(4, 16, 16), (8, 8, 8), (8, 4, 4)]
    assert all(level.dtype == torch.float32 for level in levels)


def test_images_are_those_of_the_generator_with_the_stream_s_latents():
    net, stream = generator(), rng.generator(3, "latents", "annotator", 5)
    z = torch.randn(4, GAN.z_dim, generator=stream)
    noise = [torch.randn(4, *shape, generator=stream) for shape in net.synthesis.noise_shapes]
    images, levels = made(seed=3, name="annotator", step=5, psi=0.4, cutoff=3)
    expected = net(z, psi=0.4, cutoff=3, noise=noise)
    torch.testing.assert_close(images, expected)
    ws = net.mapping.truncate(net.mapping(z)[:, None].expand(-1, GAN.num_ws, -1), psi=0.4, cutoff=3)
    features = GeneratorFeatures(net, block_outputs(net))
    for ours, theirs in zip(levels, features(pack(ws, noise)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_draw_is_named():
    base, _ = made()
    assert torch.equal(made()[0], base)
    for other in ({"seed": 1}, {"name": "annotator"}, {"step": 1}, {"psi": 1.0}, {"cutoff": 2}):
        assert not torch.allclose(made(**other)[0], base), other


def test_codes_and_layers():
    ws = torch.randn(2, GAN.num_ws, GAN.w_dim, generator=rng.generator(0))
    layers = ("synthesis.b8.conv0", "synthesis.b4.conv1")
    source = GeneratedImages(generator(), layers=layers, psi=1.0, cutoff=None, seed=0)
    images, levels = source.of_codes(pack(ws, None))
    assert torch.equal(images, generator().synthesis(ws))
    assert source.channels == tuple(level.shape[1] for level in levels) == (8, 8)
    with pytest.raises(ConfigError, match="no module is called 'synthesis.b32'"):
        GeneratedImages(generator(), layers=("synthesis.b32",), psi=1.0, cutoff=None, seed=0)


def test_the_first_stylegan_gives_two_maps_per_resolution():
    sizes = StyleGan1Config(
        resolution=16, z_dim=4, w_dim=4, mapping_layers=1, channel_base=64, channel_max=8
    )
    with rng.seeded(0, "generator"):
        net = stylegan1.Generator(sizes)
    assert block_outputs(net)[-2:] == ("g_synthesis.blocks.4x4.epi2", "g_synthesis.blocks.4x4.conv")
    _, levels = made(net=net)
    assert [level.shape[-1] for level in levels] == [16, 16, 8, 8, 4, 4]


def test_the_generator_is_frozen():
    net = generator().train().requires_grad_()
    images, levels = made(net=net)
    assert not net.training
    assert not any(each.requires_grad for each in (*net.parameters(), images, *levels))
