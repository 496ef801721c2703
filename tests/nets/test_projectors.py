import pytest
import torch
from torch import nn

from raysweep import rng
from raysweep.config import ConfigError, override
from raysweep.nets.projectors import (
    PAPER_WIDTHS,
    ConvBlock,
    Pointwise,
    ProjectorConfig,
    Standardise,
    build_projector,
)
from tests.reference import projectors as reference

RESNET50 = (256, 512, 1024, 2048)
CHANNELS = (2, 3, 4)
SMALL = {
    "mlp": (6, 5),
    "conv_a": (6, 5, 4, 3, 5, 6, 4, 3, 5, 4, 6),
    "conv_b": (6, 5, 4, 3, 5, 4, 3, 5, 4),
}
KINDS = ["mlp", "conv_a", "conv_b"]
DEPTH = {"conv_a": 6, "conv_b": 5}


def small(kind, *, seed=0, num_classes=3, **config):
    with rng.seeded(seed, "projector"):
        config = ProjectorConfig(kind=kind, widths=SMALL[kind], **config)
        return build_projector(config, CHANNELS, num_classes)


def levels(px, *, batch=2, dtype=torch.float32, seed=0):
    generator = rng.generator(seed, "levels")
    sizes = [max(px // 2, 1), max(px // 4, 1), max(px // 8, 1)]
    return [
        torch.randn(batch, count, size, size, generator=generator, dtype=dtype)
        for count, size in zip(CHANNELS, sizes, strict=True)
    ]


def on_meta(kind, num_classes):
    with torch.device("meta"):
        return build_projector(ProjectorConfig(kind=kind), RESNET50, num_classes)


@pytest.mark.parametrize("num_classes", [2, 34])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_those_of_the_papers_tables(kind, num_classes):
    net = on_meta(kind, num_classes)
    table = [
        (wide, num_classes if out == "C" else out) for wide, out in reference.TABLES[kind].values()
    ]
    weights = [p for p in net.parameters() if p.dim() == 4]
    assert [(w.shape[1], w.shape[0]) for w in weights] == table
    kernels = [3] * (len(table) - 1) + [1] if kind != "mlp" else [1] * 3
    assert [tuple(w.shape[2:]) for w in weights] == [(k, k) for k in kernels]
    biased = kind != "mlp"
    expected = sum(i * o * k * k + biased * o for (i, o), k in zip(table, kernels, strict=True))
    expected += sum(2 * out for _, out in table[:-1])  # scale and shift of the batch norms
    assert sum(p.numel() for p in net.parameters()) == expected


def test_number_of_parameters_at_34_classes():
    counts = {k: sum(p.numel() for p in on_meta(k, 34).parameters()) for k in KINDS}
    assert counts == {"mlp": 4_205_568, "conv_a": 50_450_594, "conv_b": 46_319_522}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("conv_a", [32, 16, 8, 4, 2, 4, 8, 16, 32, 64]),
        ("conv_b", [32, 16, 8, 4, 8, 16, 32, 64]),
    ],
)
def test_blocks_work_at_the_resolutions_of_the_tables(kind, sizes):
    net, seen = small(kind), []
    for module in net.modules():
        if isinstance(module, ConvBlock):
            module.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[2:])))
    assert net(levels(64), 64).shape == (2, 3, 64, 64)
    assert seen == [(size, size) for size in sizes]


def copied(net, kind, num_classes):
    """The plain projector with the weights of ours."""
    if kind == "mlp":
        plain = reference.PlainMlp(sum(CHANNELS), SMALL[kind], num_classes)
        theirs = [plain[at] for at in (0, 1, 3, 4, 6)]
        ours = [net.first, net.norm1, net.second, net.norm2, net.classes]
    else:
        plain = reference.PlainUnet(sum(CHANNELS), SMALL[kind], num_classes, depth=DEPTH[kind])
        blocks = [*net.down, *net.up]
        theirs = [*plain.convs, *plain.norms, plain.classes]
        ours = [net.first, *(b.conv for b in blocks), net.norm, *(b.norm for b in blocks)]
        ours.append(net.classes)
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    return plain, list(zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("kind", "px"),
    [
        *(("mlp", px) for px in (1, 2, 7, 16, 65)),
        *(("conv_a", px) for px in (32, 33, 47, 66)),
        *(("conv_b", px) for px in (16, 17, 31, 33, 48)),
    ],
)
@pytest.mark.parametrize("batch", [2, 3])
def test_equals_plain_layers_over_the_materialised_hypercolumn(kind, px, batch):
    net = small(kind).double()
    plain, pairs = copied(net, kind, 3)
    plain = plain.double()
    maps = levels(px, batch=batch, dtype=torch.float64)
    weigh = torch.randn(batch, 3, px, px, generator=rng.generator(0, "w"), dtype=torch.float64)
    ours, theirs = net(maps, px), plain(reference.stacked(maps, px))
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-7)
    (ours * weigh).sum().backward()
    (theirs * weigh).sum().backward()
    for mine, other in pairs:
        for name, parameter in mine.named_parameters():
            expected = other.get_parameter(name).grad
            torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-5)
    net.eval()
    plain.eval()  # the batch norms now use what they have seen in training
    again = net(maps, px)
    torch.testing.assert_close(again, plain(reference.stacked(maps, px)), atol=1e-7, rtol=1e-7)
    assert not torch.allclose(again, ours)


@pytest.mark.parametrize("kind", KINDS)
def test_initialisation(kind):
    with rng.seeded(0, "projector"):
        widths = tuple(width // 4 for width in PAPER_WIDTHS[kind])
        net = build_projector(ProjectorConfig(kind=kind, widths=widths), (64, 128), 16)
    scales = []
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            expected = (2 / parameter[0].numel()) ** 0.5
            samples = parameter.numel()
            assert parameter.std().item() == pytest.approx(expected, rel=4 / samples**0.5), name
            assert abs(parameter.mean().item()) < 5 * expected / samples**0.5, name
        elif name.endswith("bias"):
            assert parameter.eq(0).all(), name
        else:
            scales.append(parameter.detach())
    scale = torch.cat(scales)
    assert scale.mean().item() == pytest.approx(1, abs=5 * 0.02 / len(scale) ** 0.5)
    assert scale.std().item() == pytest.approx(0.02, rel=4 / len(scale) ** 0.5)


def test_weights_are_drawn_from_the_global_generator():
    same = zip(small("conv_b").parameters(), small("conv_b").parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    other = zip(small("mlp").parameters(), small("mlp", seed=1).parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in other if a.dim() == 4)


@pytest.mark.parametrize(("kind", "smallest"), [("conv_a", 32), ("conv_b", 16)])
def test_smallest_output_is_what_can_still_be_pooled(kind, smallest):
    net = small(kind)
    assert ProjectorConfig(kind=kind).minimum_px == smallest
    assert net(levels(smallest), smallest).shape[-2:] == (smallest, smallest)
    with pytest.raises(RuntimeError, match="(?i)output size"):
        net(levels(smallest // 2), smallest // 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(), (4,), (4,) * 8, (4,) * 12])
def test_wrong_number_of_widths_is_refused(kind, widths):
    expected = len(PAPER_WIDTHS[kind])
    with pytest.raises(ValueError, match=f"{kind} takes {expected} positive numbers"):
        ProjectorConfig(kind=kind, widths=widths)


def test_widths_of_zero_and_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="positive numbers"):
        ProjectorConfig(widths=(8, 0))
    with pytest.raises(ConfigError, match="conv_b takes 9"):
        override(ProjectorConfig(widths=(8, 8)), {"kind": "conv_b"})


@pytest.mark.parametrize("kind", KINDS)
def test_levels_of_other_channels_are_refused(kind):
    with pytest.raises(ValueError, match=r"expected \(2, 3, 4\)"):
        small(kind)(levels(32)[::-1], 32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 5, 7), (3, 3, 1, 4)])
def test_pointwise_is_a_1x1_convolution(shape, bias):
    with rng.seeded(0, "pointwise"):
        ours, theirs = Pointwise(3, 4, bias=bias), nn.Conv2d(3, 4, 1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, generator=rng.generator(0, "x"))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0]), theirs(inputs[1])]
    torch.testing.assert_close(*outputs)
    for out in outputs:
        out.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    if bias:
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_standardise_scales_every_channel_of_every_level():
    maps = [level * 100 + 7 for level in levels(32)]
    for out in Standardise(CHANNELS, active=True)(maps):
        assert out.mean((0, 2, 3)).abs().max() < 1e-5
        torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones(out.shape[1]))
    for out, level in zip(Standardise(CHANNELS, active=False)(maps), maps, strict=True):
        assert torch.equal(out, level)


@pytest.mark.parametrize("kind", KINDS)
def test_standardise_has_no_weights_and_makes_the_scale_of_levels_irrelevant(kind):
    net, plain = small(kind, standardise=True), small(kind)
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in plain.named_parameters()]
    maps = levels(32)
    scaled = [level * factor for level, factor in zip(maps, (1, 100, 0.5), strict=True)]
    torch.testing.assert_close(net(maps, 32), net(scaled, 32), atol=2e-3, rtol=0)
    assert (plain(maps, 32) - plain(scaled, 32)).abs().max() > 0.1
