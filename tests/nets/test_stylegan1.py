import pydantic
import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError, override
from raysweep.nets.stylegan1 import Generator, Mapping, StyleGan1Config
from raysweep.nets.stylegan1_layers import Blur, Epilogue, UpConv
from tests.reference import stylegan1 as reference

TINY = StyleGan1Config(
    resolution=16, z_dim=3, w_dim=4, mapping_layers=2, channel_base=16, channel_max=4, mbstd_group=2
)


def normal(*shape, name="x"):
    return torch.randn(*shape, generator=rng.generator(0, name), dtype=torch.float64)


def filled(module):
    """Return the module in double precision with every parameter drawn anew, biases too."""
    module = module.double()
    generator = rng.generator(0, "parameters")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def small_generator(config=TINY):
    return filled(Generator(config))


def rows(generator, z):
    return generator.mapping(z)[:, None].expand(-1, generator.config.num_ws, -1)


def lists(module):
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(("z_dim", "w_dim", "layers"), [(1, 1, 1), (3, 4, 2), (5, 2, 4)])
def test_mapping_equals_the_definition(z_dim, w_dim, layers):
    config = override(TINY, {"z_dim": z_dim, "w_dim": w_dim, "mapping_layers": layers})
    net = filled(Mapping(config))
    z = normal(2, z_dim)
    state = lists(net)
    tensors = [(state[f"dense{i}.weight"], state[f"dense{i}.bias"]) for i in range(layers)]
    for ours, latent in zip(net(z), z.tolist(), strict=True):
        assert ours.tolist() == pytest.approx(reference.mapping(latent, tensors), rel=1e-9)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_blur_equals_the_definition(side):
    x = normal(1, 2, side, side + 1)
    ours = Blur().double()(x)[0]
    expected = torch.tensor([reference.blur(p) for p in x[0].tolist()], dtype=torch.float64)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("side", [1, 4])
@pytest.mark.parametrize("blur", [True, False])
@pytest.mark.parametrize("resolution", [64, 128])
def test_up_conv_equals_doubling_then_convolving(inputs, outputs, side, blur, resolution):
    layer = filled(UpConv(inputs, outputs, resolution=resolution, blur=blur))
    x = normal(1, inputs, side, side)
    state = lists(layer)
    expected = reference.up_conv(
        x[0].tolist(), state["weight"], state["bias"], flipped=resolution >= 128, blurred=blur
    )
    torch.testing.assert_close(layer(x)[0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("channels", "side", "w_dim"), [(1, 2, 1), (3, 4, 5)])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
@pytest.mark.parametrize("noisy", [True, False])
def test_epilogue_equals_the_definition(channels, side, w_dim, eps, noisy):
    layer = filled(Epilogue(channels, w_dim=w_dim, eps=eps))
    x, w = normal(1, channels, side, side), normal(1, w_dim, name="w")
    noise = normal(1, 1, side, side, name="noise") if noisy else None
    state = lists(layer)
    expected = reference.epilogue(
        x[0].tolist(),
        w[0].tolist(),
        noise[0, 0].tolist() if noisy else None,
        strength=state["top_epi.noise.weight"],
        weight=state["style_mod.lin.weight"],
        bias=state["style_mod.lin.bias"],
        eps=eps,
    )
    torch.testing.assert_close(layer(x, w, noise)[0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_generator_equals_the_definition(eps):
    config = override(TINY, {"instance_norm_eps": eps})
    net = small_generator(config)
    z = normal(2, config.z_dim)
    noise = [normal(2, *shape, name=f"n{i}") for i, shape in enumerate(net.synthesis.noise_shapes)]
    images = net(z, noise=noise)
    assert images.shape == (2, 3, 16, 16)
    expected = reference.generator(
        lists(net),
        z[1].tolist(),
        [plane[1, 0].tolist() for plane in noise],
        resolution=16,
        layers=config.mapping_layers,
        eps=eps,
    )
    torch.testing.assert_close(images[1], torch.tensor(expected, dtype=torch.float64))


def test_full_size_channels_are_the_papers():
    config = StyleGan1Config(resolution=1024)
    channels = [config.channels(r) for r in config.resolutions]
    assert channels == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    # totals of DatasetGAN's features, two maps per resolution
    totals = {r: 2 * sum(config.channels(2**k) for k in range(2, r.bit_length())) for r in (256,)}
    assert totals == {256: 4992}
    assert config.num_ws == 18


def test_names_are_those_of_the_port():
    names = set(Generator(TINY).state_dict())
    block = "g_synthesis.blocks.16x16"
    assert {
        "g_mapping.dense1.weight",
        "g_synthesis.blocks.4x4.const",
        "g_synthesis.blocks.4x4.bias",
        "g_synthesis.blocks.4x4.conv.weight",
        f"{block}.conv0_up.weight",
        f"{block}.conv0_up.intermediate.kernel",
        f"{block}.conv1.bias",
        f"{block}.epi1.top_epi.noise.weight",
        f"{block}.epi2.style_mod.lin.bias",
        "g_synthesis.torgb.weight",
    } <= names
    assert len(names) == 2 * 2 + 1 + 2 + 2 + 2 * 3 + 2 * (5 + 2 * 3) + 2


def test_new_weights_are_equalised_and_start_without_noise():
    with rng.seeded(0, "weights"):
        net = Generator(StyleGan1Config(resolution=16, channel_base=512, channel_max=64))
    state = net.state_dict()
    assert state["g_mapping.dense0.weight"].std().item() == pytest.approx(100, rel=0.02)
    assert state["g_synthesis.blocks.8x8.conv1.weight"].std().item() == pytest.approx(1, rel=0.02)
    assert state["g_synthesis.blocks.4x4.const"].eq(1).all()
    strengths = [t for name, t in state.items() if name.endswith("noise.weight")]
    assert len(strengths) == 6
    assert all(t.eq(0).all() for t in strengths)


def test_every_row_styles_its_own_layer():
    net = small_generator()
    ws = rows(net, normal(1, TINY.z_dim)).clone()
    seen = {}
    for name, module in net.named_modules():
        if isinstance(module, Epilogue):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    net.synthesis(ws)
    before = dict(seen)
    assert len(before) == net.config.num_ws == 6
    for row, name in enumerate(before):
        changed = ws.clone()
        changed[:, row] += 1
        net.synthesis(changed)
        differs = [not torch.equal(seen[key], before[key]) for key in before]
        assert differs == [i >= row for i in range(6)], name


def test_both_readings_of_the_features_can_be_hooked():
    net = small_generator()
    block = net.synthesis.blocks["16x16"]
    seen = {}
    for name in ("conv1", "epi1", "epi2"):
        module = block.get_submodule(name)
        module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    noise = net.synthesis.draw_noise(1, generator=rng.generator(0, "noise"), device="cpu")
    z = normal(1, TINY.z_dim)
    with_noise = net(z, noise=[plane.double() for plane in noise])
    conv = torch.nn.functional.conv2d(
        seen["epi1"], block.conv1.weight * block.conv1.scale, block.conv1.bias, padding=1
    )
    torch.testing.assert_close(seen["conv1"], conv)
    torch.testing.assert_close(net.synthesis.torgb(seen["epi2"]), with_noise)


def test_truncation_moves_the_first_rows_towards_the_mean():
    net = small_generator()
    net.mapping.w_avg.copy_(normal(4, name="mean"))
    ws = rows(net, normal(2, TINY.z_dim))
    mean = net.mapping.w_avg
    pulled = net.mapping.truncate(ws, psi=0.7, cutoff=2)
    torch.testing.assert_close(pulled[:, :2], mean + 0.7 * (ws[:, :2] - mean))
    assert torch.equal(pulled[:, 2:], ws[:, 2:])
    assert torch.equal(net.mapping.truncate(ws, psi=1, cutoff=None), ws)
    torch.testing.assert_close(net.mapping.truncate(ws, psi=0, cutoff=None), mean.expand(2, 6, 4))
    z = normal(2, TINY.z_dim)
    torch.testing.assert_close(
        net(z, psi=0.5, cutoff=3),
        net.synthesis(net.mapping.truncate(rows(net, z), psi=0.5, cutoff=3)),
    )


def test_mean_of_w_is_tracked():
    net = Mapping(TINY)
    w = normal(8, 4).float()
    net.track(w)
    net.track(w)
    torch.testing.assert_close(net.w_avg, (1 - 0.995**2) * w.mean(0))


def test_noise_comes_from_the_generator_and_changes_the_image():
    net = small_generator()
    draws = [
        net.synthesis.draw_noise(2, generator=rng.generator(seed, "noise"), device="cpu")
        for seed in (0, 0, 1)
    ]
    assert [tuple(plane.shape) for plane in draws[0]] == [
        (2, 1, r, r) for r in (4, 4, 8, 8, 16, 16)
    ]
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    z = normal(2, TINY.z_dim)
    images = [net(z, noise=[plane.double() for plane in noise]) for noise in draws]
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


def test_wrong_numbers_of_rows_and_maps_are_refused():
    net = Generator(TINY)
    with pytest.raises(ValueError, match=r"expected \(batch, 6, w_dim\)"):
        net.synthesis(torch.zeros(1, 5, 4))
    with pytest.raises(ValueError, match="5 noise maps: expected 6"):
        net.synthesis(torch.zeros(1, 6, 4), [torch.zeros(1, 1, 4, 4)] * 5)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"resolution": 32}, "g_synthesis.blocks.32x32.conv1.weight"),
        ({"z_dim": 5}, "g_mapping.dense0.weight"),
        ({"w_dim": 5}, "g_synthesis.blocks.4x4.epi1.style_mod.lin.weight"),
        ({"mapping_layers": 3}, "g_mapping.dense2.weight"),
        ({"channel_base": 32}, "g_synthesis.torgb.weight"),
        ({"channel_max": 3}, "g_synthesis.blocks.4x4.const"),
        ({"blur": False}, "g_synthesis.blocks.8x8.conv0_up.intermediate.kernel"),
    ],
)
def test_settings_change_the_generator(change, differs):
    shapes = [
        {name: tuple(t.shape) for name, t in Generator(config).state_dict().items()}
        for config in (TINY, override(TINY, change))
    ]
    assert shapes[0].get(differs) != shapes[1].get(differs)


def test_generator_is_twice_differentiable():
    net = small_generator()
    ws = rows(net, normal(1, TINY.z_dim)).detach().requires_grad_()
    weights = normal(1, 3, 16, 16, name="probe")
    (slope,) = torch.autograd.grad((net.synthesis(ws) * weights).sum(), ws, create_graph=True)
    slope.square().sum().backward()
    assert net.synthesis.blocks["8x8"].conv0_up.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 48}, "resolution = 48: must be a power of two"),
        ({"resolution": 64, "channel_base": 16}, "channel_base = 16: leaves no channel at 64 px"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        override(TINY, change)


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 8},
        {"resolution": 2048},
        {"z_dim": 0},
        {"w_dim": 0},
        {"mapping_layers": 0},
        {"channel_base": 0},
        {"channel_max": 0},
        {"instance_norm_eps": 0.0},
        {"mbstd_group": 0},
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises((ConfigError, pydantic.ValidationError), match=next(iter(change))):
        override(TINY, change)
