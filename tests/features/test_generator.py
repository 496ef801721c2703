import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.features.activations import recorded
from raysweep.features.generator import GeneratorFeatures, default_layers, pack, unpack
from raysweep.nets import stylegan1
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import Generator, StyleGan2Config

CONFIG = StyleGan2Config(
    resolution=16, z_dim=4, w_dim=4, mapping_layers=1, channel_base=64, channel_max=8
)


def generator():
    with rng.seeded(0, "generator"):
        net = Generator(CONFIG)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return net.eval()


def latents(count=3, seed=0):
    stream = rng.generator(seed, "latents")
    ws = torch.randn(count, CONFIG.num_ws, CONFIG.w_dim, generator=stream)
    return ws, generator().synthesis.draw_noise(count, generator=stream, device="cpu")


@pytest.mark.parametrize("with_noise", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_codes_hold_rows_and_noise(count, with_noise):
    ws, noise = latents(count)
    found, maps = unpack(pack(ws, noise if with_noise else None), generator())
    assert torch.equal(found, ws)
    if not with_noise:
        assert maps is None
    else:
        assert all(torch.equal(a, b) for a, b in zip(maps, noise, strict=True))


def test_codes_of_another_generator_are_refused():
    with pytest.raises(ValueError, match="codes of length 7: this generator takes 24"):
        unpack(torch.zeros(2, 7), generator())


def test_features_are_what_the_layers_return_on_the_way_to_the_image():
    net, (ws, noise) = generator(), latents()
    levels = GeneratorFeatures(net)(pack(ws, noise))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (4, 16, 16),
        (4, 16, 16),
        (8, 8, 8),
        (8, 8, 8),
        (8, 4, 4),
    ]
    # the first layer by hand: from the learned constant on
    block = net.synthesis.b4
    first = block.conv1(block.const.expand(3, -1, -1, -1), ws[:, 0], noise[0])
    torch.testing.assert_close(levels[-1], first)


def test_noise_and_rows_both_reach_the_features():
    features, (ws, noise) = GeneratorFeatures(generator()), latents()
    base = features(pack(ws, noise))
    for other in (pack(ws, None), pack(ws + 1, noise)):
        assert not torch.allclose(base[0], features(other)[0])


def test_layers_are_chosen_by_name_in_the_order_given():
    layers = ("synthesis.b8.conv0", "synthesis.b16.torgb")
    features = GeneratorFeatures(generator(), layers)
    assert features.channels == (8, 3)
    ws, noise = latents()
    every = GeneratorFeatures(generator())(pack(ws, noise))
    place = default_layers(generator()).index(layers[0])
    assert torch.equal(features(pack(ws, noise))[0], every[place])
    with pytest.raises(ConfigError, match=r"no module is called 'synthesis.b32'; there are .*b16"):
        GeneratorFeatures(generator(), ("synthesis.b32",))


def test_hooks_are_gone_after_the_block():
    net = generator()
    with recorded(net, ["mapping"]) as found:
        net(torch.zeros(1, 4))
    kept = found["mapping"]
    net(torch.ones(1, 4))
    assert found["mapping"] is kept


def test_the_first_stylegan_gives_datasetgans_maps():
    config = StyleGan1Config(
        resolution=16, z_dim=4, w_dim=4, mapping_layers=1, channel_base=32, channel_max=8
    )
    with rng.seeded(0, "generator"):
        net = stylegan1.Generator(config).eval()
    features = GeneratorFeatures(net)
    ws = torch.randn(2, config.num_ws, 4, generator=rng.generator(0, "ws"))
    noise = net.synthesis.draw_noise(2, generator=rng.generator(0, "noise"), device="cpu")
    levels = features(pack(ws, noise))
    assert [level.shape[-1] for level in levels] == [16, 16, 8, 8, 4, 4]  # two per resolution
    assert features.channels == tuple(level.shape[1] for level in levels)
    adain = levels[0]  # normalised per channel, then styled by w: not the raw convolution
    assert not torch.allclose(adain, levels[1])
    both = GeneratorFeatures(net, ("g_synthesis.blocks.16x16.epi2",))(pack(ws, noise))[0]
    assert torch.equal(both, adain)
