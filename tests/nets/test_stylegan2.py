import pytest
import torch

from raysweep import rng
from raysweep.config import override
from raysweep.nets.stylegan2 import Generator, Mapping
from raysweep.nets.stylegan2_layers import SynthesisLayer
from tests.nets.stylegan2_cases import TINY, assert_gradient, chosen, draw, seeded, visible_noise
from tests.reference import stylegan2 as reference


@pytest.mark.parametrize(("z_dim", "w_dim", "layers"), [(1, 1, 1), (3, 5, 2), (4, 4, 8)])
def test_mapping_is_the_reference(z_dim, w_dim, layers):
    config = override(TINY, {"z_dim": z_dim, "w_dim": w_dim, "mapping_layers": layers})
    mapping, z = seeded(Mapping, config).double(), draw(3, z_dim, dtype=torch.float64)
    with torch.no_grad():
        for name, bias in mapping.named_parameters():
            if name.endswith("bias"):
                bias.copy_(100 * draw(*bias.shape, name=name))
    fully = [mapping.get_submodule(f"fc{index}") for index in range(layers)]
    weights = [(fc.weight.tolist(), fc.bias.tolist()) for fc in fully]
    expected = [reference.mapping(row.tolist(), weights) for row in z]
    torch.testing.assert_close(mapping(z), torch.tensor(expected).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_synthesis_layer_is_the_reference(up, stored):
    with rng.seeded(0, "layer"):
        layer = SynthesisLayer(3, 2, w_dim=TINY.w_dim, resolution=8 if up else 4, up=up).double()
    with torch.no_grad():
        layer.bias.copy_(draw(2, name="bias"))
        layer.noise_strength.fill_(0.7)
    side = len(layer.noise_const)
    x, w = draw(2, 3, 4, 4, dtype=torch.float64), draw(2, TINY.w_dim, dtype=torch.float64)
    noise = draw(2, 1, side, side, name="noise", dtype=torch.float64)
    maps = layer.noise_const.expand(2, side, side) if stored else noise[:, 0]
    expected = [
        reference.synthesis_layer(
            x[i].tolist(),
            w[i].tolist(),
            maps[i].tolist(),
            affine=(layer.affine.weight.tolist(), layer.affine.bias.tolist()),
            weight=layer.weight.tolist(),
            bias=layer.bias.tolist(),
            strength=0.7,
            up=up,
        )
        for i in range(2)
    ]
    ours = layer(x, w, None if stored else noise)
    torch.testing.assert_close(ours, torch.tensor(expected).double(), atol=1e-5, rtol=1e-5)


def test_each_row_of_w_reaches_its_layers():
    net, rows = seeded(Generator), draw(1, TINY.num_ws, TINY.w_dim)
    seen = {}
    for name, module in net.synthesis.named_modules():
        if name.endswith(".affine"):
            keep = lambda m, given, out, name=name: seen.__setitem__(name, given[0])  # noqa: E731
            module.register_forward_hook(keep)
    net.synthesis(rows)
    expected = {"b4.conv1": 0, "b4.torgb": 1, "b8.conv0": 1, "b8.conv1": 2, "b8.torgb": 3}
    expected |= {"b16.conv0": 3, "b16.conv1": 4, "b16.torgb": 5}
    assert seen.keys() == {f"{name}.affine" for name in expected}
    for name, row in expected.items():
        assert torch.equal(seen[f"{name}.affine"], rows[:, row])


def test_layers_can_be_hooked_for_activations():
    net, seen = seeded(Generator), []
    net.synthesis.b8.conv0.register_forward_hook(lambda m, given, out: seen.append(out))
    net(draw(2, TINY.z_dim))
    assert seen[0].shape == (2, TINY.channels(8), 8, 8)
    assert (seen[0] < 0).any()
    assert seen[0].mean() > 0  # the leaky ReLU has been at work


def test_images_are_the_sum_of_the_upsampled_colours():
    net, seen = visible_noise(seeded(Generator)), []
    for side in TINY.resolutions:
        block = net.synthesis.get_submodule(f"b{side}")
        block.torgb.register_forward_hook(lambda m, given, out: seen.append(out[0].tolist()))
    images = net(draw(1, TINY.z_dim))
    total = [[[0.0] * 2 for _ in range(2)] for _ in range(3)]
    for colours in seen:
        below = [reference.upsample(plane) for plane in total]
        total = [
            [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(*planes, strict=True)]
            for planes in zip(below, colours, strict=True)
        ]
    torch.testing.assert_close(images[0], torch.tensor(total), atol=1e-5, rtol=1e-5)
    assert images.dtype == torch.float32


def test_noise_is_stored_or_given():
    net, z = visible_noise(seeded(Generator)), draw(2, TINY.z_dim)
    noise = net.synthesis.draw_noise(2, generator=rng.generator(0, "noise"), device="cpu")
    assert [tuple(m.shape[1:]) for m in noise] == list(net.synthesis.noise_shapes)
    assert [m.shape for m in noise] == [(2, 1, side, side) for side in (4, 8, 8, 16, 16)]
    assert torch.equal(net(z), net(z))
    assert not torch.allclose(net(z), net(z, noise=noise))
    layers = [module for module in net.modules() if isinstance(module, SynthesisLayer)]
    stored = [layer.noise_const.expand(2, 1, -1, -1) for layer in layers]
    torch.testing.assert_close(net(z), net(z, noise=stored))


def test_noise_is_drawn_from_the_given_generator():
    synthesis = seeded(Generator).synthesis
    draws = [
        synthesis.draw_noise(2, generator=rng.generator(seed, "noise"), device="cpu")
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(draws[0], draws[2], strict=True))


def test_samples_do_not_depend_on_each_other():
    net, z = visible_noise(seeded(Generator)), draw(3, TINY.z_dim)
    torch.testing.assert_close(net(z)[1:2], net(z[1:2]), atol=1e-5, rtol=1e-5)


def test_wrong_rows_and_noise_are_refused():
    synthesis = seeded(Generator).synthesis
    with pytest.raises(ValueError, match=r"expected \(batch, 6, w_dim\)"):
        synthesis(draw(1, 5, TINY.w_dim))
    with pytest.raises(ValueError, match="2 noise maps: expected 5"):
        synthesis(draw(1, 6, TINY.w_dim), [draw(1, 1, 4, 4)] * 2)


def test_mean_of_w_is_tracked():
    mapping = seeded(Mapping)
    first, second = draw(4, TINY.w_dim, name="a"), draw(4, TINY.w_dim, name="b")
    mapping.track(first)
    mapping.track(second)
    expected = 0.995 * 0.005 * first.mean(0) + 0.005 * second.mean(0)
    torch.testing.assert_close(mapping.w_avg, expected)


def test_truncation():
    mapping, ws = seeded(Mapping), draw(2, 4, TINY.w_dim)
    mapping.w_avg.copy_(draw(TINY.w_dim, name="mean"))
    mean = mapping.w_avg.expand_as(ws)
    assert torch.equal(mapping.truncate(ws), ws)
    torch.testing.assert_close(mapping.truncate(ws, psi=0.0), mean)
    torch.testing.assert_close(mapping.truncate(ws, psi=0.7), 0.7 * ws + 0.3 * mean)
    partly = mapping.truncate(ws, psi=0.5, cutoff=3)
    torch.testing.assert_close(partly[:, :3], (ws + mean)[:, :3] / 2)
    assert torch.equal(partly[:, 3:], ws[:, 3:])


def test_forward_truncates():
    net, z = seeded(Generator), draw(2, TINY.z_dim)
    mean = net(z, psi=0.0)
    torch.testing.assert_close(mean[0], mean[1])
    assert not torch.allclose(net(z, psi=0.5), net(z))
    assert not torch.allclose(net(z, psi=0.5, cutoff=2), net(z, psi=0.5))


def test_path_lengths_of_the_generator_can_be_differentiated():
    net = visible_noise(seeded(Generator)).double()
    z = draw(2, TINY.z_dim, dtype=torch.float64)
    weights = draw(2, 3, 16, 16, dtype=torch.float64)

    def length():
        ws = net.mapping(z)[:, None].expand(-1, TINY.num_ws, -1)
        total = (net.synthesis(ws) * weights).sum()
        (gradient,) = torch.autograd.grad(total, ws, create_graph=True)
        return gradient.square().sum(2).mean(1).sqrt().mean()

    names = ("mapping.fc0.weight", "synthesis.b4.const", "synthesis.b16.conv0.weight")
    names += ("synthesis.b8.conv1.affine.weight", "synthesis.b16.torgb.weight")
    names += ("synthesis.b16.conv1.noise_strength",)
    assert_gradient(length, chosen(net, *names))
