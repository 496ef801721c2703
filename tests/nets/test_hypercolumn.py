import pytest
import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.nets.hypercolumn import HypercolumnConv2d, hypercolumn
from tests.reference import hypercolumn as reference

# output size, then the size of each level: nested, odd, larger than the output, one pixel
CASES = [
    ((8, 8), [(4, 4), (2, 2), (1, 1)]),
    ((8, 8), [(8, 8), (4, 4), (2, 2)]),
    ((5, 9), [(5, 9)]),
    ((1, 1), [(1, 1), (1, 1)]),
    ((1, 1), [(3, 2), (2, 5)]),
    ((7, 11), [(7, 11), (7, 11), (3, 2)]),
    ((13, 6), [(20, 9), (5, 1), (1, 6)]),
    ((70, 131), [(35, 66), (18, 33), (9, 140)]),
]
CHANNELS = (3, 4, 2)


def layer_and_levels(shapes, kernel, *, bias=True, batch=2, outputs=5, dtype=torch.float64):
    channels = CHANNELS[: len(shapes)]
    with rng.seeded(0, "layer"):
        layer = HypercolumnConv2d(channels, outputs, kernel=kernel, bias=bias).to(dtype)
        levels = [
            torch.randn(batch, count, *shape, dtype=dtype)
            for count, shape in zip(channels, shapes, strict=True)
        ]
    return layer, levels


def plain(layer, levels, size):
    return F.conv2d(hypercolumn(levels, size), layer.weight, layer.bias, padding=layer.kernel // 2)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("size", "shapes"), CASES[:-1])
def test_equals_the_loops(size, shapes, kernel):
    layer, levels = layer_and_levels(shapes, kernel)
    layer.requires_grad_(False)
    out = layer(levels, size)
    for image in range(2):
        planes = [
            reference.resize(plane, *size)
            for level in reversed(levels)
            for plane in level[image].tolist()
        ]
        for at, (weight, bias) in enumerate(zip(layer.weight, layer.bias, strict=True)):
            looped = reference.convolve(planes, weight.tolist(), float(bias))
            torch.testing.assert_close(out[image, at], torch.tensor(looped, dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("size", "shapes"), CASES)
def test_forward_and_gradients_equal_the_materialised_ones(size, shapes, kernel, bias):
    layer, levels = layer_and_levels(shapes, kernel, bias=bias)
    ours, theirs = layer(levels, size), plain(layer, levels, size)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    weigh = torch.randn(theirs.shape, generator=rng.generator(0, "w"), dtype=torch.float64)
    parameters = list(layer.parameters())
    found = torch.autograd.grad(ours, parameters, weigh)
    for mine, other in zip(found, torch.autograd.grad(theirs, parameters, weigh), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_single_precision_is_exact_to_rounding(kernel):
    layer, levels = layer_and_levels([(32, 32), (16, 16), (8, 8)], kernel, dtype=torch.float32)
    ours, theirs = layer(levels, (64, 64)), plain(layer, levels, (64, 64))
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    weigh = torch.randn(theirs.shape, generator=rng.generator(0, "w"))
    (found,) = torch.autograd.grad(ours, [layer.weight], weigh)
    (expected,) = torch.autograd.grad(theirs, [layer.weight], weigh)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("kernel", [1, 3])
def test_gradcheck(kernel):
    layer, levels = layer_and_levels([(5, 4), (2, 3)], kernel, outputs=2)
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(False)

    def call(weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (levels, (5, 7)))

    inputs = [p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias)]
    assert torch.autograd.gradcheck(call, inputs)


def test_hypercolumn_is_ordered_deep_to_shallow_as_in_the_released_code():
    _, levels = layer_and_levels([(4, 4), (2, 2), (1, 1)], 1)
    stacked = hypercolumn(levels, (4, 4))
    assert torch.equal(stacked[:, -3:], levels[0])
    torch.testing.assert_close(stacked[:, :2], levels[2].expand(-1, -1, 4, 4))


@pytest.mark.parametrize("kernel", [1, 3])
def test_images_of_a_batch_do_not_mix(kernel):
    layer, levels = layer_and_levels([(4, 4), (2, 2)], kernel, batch=3)
    together = layer(levels, (9, 9))
    alone = [layer([level[i : i + 1] for level in levels], (9, 9)) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("kernel", [1, 3])
def test_memory_format_of_the_levels_does_not_matter(kernel):
    layer, levels = layer_and_levels([(9, 9), (4, 4), (2, 2)], kernel)
    dense = [level.contiguous(memory_format=torch.channels_last) for level in levels]
    torch.testing.assert_close(layer(dense, (9, 9)), layer(levels, (9, 9)))


def test_weights_are_those_of_a_plain_convolution():
    layer = HypercolumnConv2d((256, 512, 1024, 2048), 8, kernel=3, bias=True)
    expected = torch.nn.Conv2d(3840, 8, 3, padding=1).state_dict()
    assert {n: t.shape for n, t in layer.state_dict().items()} == {
        n: t.shape for n, t in expected.items()
    }


@pytest.mark.parametrize("sizes", [[(16, 16), (8, 8)], [(8, 8), (4, 4)]])
@pytest.mark.parametrize("kernel", [1, 3])
def test_autocast_multiplies_in_bf16_and_keeps_fp32_gradients(kernel, sizes):
    layer, levels = layer_and_levels(sizes, kernel, dtype=torch.float32)
    exact = layer(levels, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer([level.bfloat16() for level in levels], (16, 16))
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)
    (found,) = torch.autograd.grad(rough.float().square().sum(), [layer.weight])
    (expected,) = torch.autograd.grad(exact.square().sum(), [layer.weight])
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.03 * expected.norm()


def test_shapes_on_meta():
    with torch.device("meta"):
        layer = HypercolumnConv2d((256, 512, 1024, 2048), 1024, kernel=3, bias=True)
        sides = [256, 128, 64, 32]
        levels = [torch.empty(1, c, s, s) for c, s in zip(layer.channels, sides, strict=True)]
        assert layer(levels, (512, 512)).shape == (1, 1024, 512, 512)


def test_same_numbers_every_time():
    layer, levels = layer_and_levels([(16, 16), (8, 8)], 3, dtype=torch.float32)
    grads = []
    for _ in range(2):
        layer.zero_grad()
        layer(levels, (33, 33)).square().sum().backward()
        grads.append(layer.weight.grad.clone())
    assert torch.equal(*grads)


def test_wrong_use_is_refused():
    layer, levels = layer_and_levels([(4, 4), (2, 2)], 1)
    with pytest.raises(ValueError, match=r"levels have \(4, 3\) channels: expected \(3, 4\)"):
        layer(levels[::-1], (4, 4))
    with pytest.raises(ValueError, match="frozen, detach them"):
        layer([level.requires_grad_() for level in levels], (4, 4))
    with torch.no_grad():
        layer(levels, (4, 4))  # nothing is differentiated here
    with pytest.raises(ValueError, match="kernel = 2: must be odd"):
        HypercolumnConv2d((3,), 2, kernel=2, bias=False)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", [1, 3])
def test_gpu_agrees_with_the_cpu(kernel):
    layer, levels = layer_and_levels([(16, 16), (8, 8)], kernel)
    layer(levels, (33, 33)).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer = layer.cuda()
    layer.zero_grad()
    layer([level.cuda() for level in levels], (33, 33)).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad.cpu(), expected)
