import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict
from raysweep.nets.pixel_mlps import PixelMlp, StackedPixelMlps, pixel_widths
from raysweep.nets.projectors import ProjectorConfig, build_projector
from tests.reference import annotators as reference
from tests.reference.projectors import stacked

CHANNELS = (2, 3, 4)
CNNS = list(reference.CNNS)
SMALL = {"cnn_s": (5, 4, 3, 4), "cnn_m": (5, 4, 3, 4, 5, 3), "cnn_l": (5, 4, 3, 4, 5, 3, 4, 3)}
MLPS = ["pixel_mlp", "regan_mlp"]


def config_of(kind, *, released=False, widths=None):
    name = kind.replace("cnn", "regan") + ("_released" if released else "")
    return ProjectorConfig(kind=name, widths=widths)


def small(kind, *, released=False, num_classes=3, seed=0, channels=CHANNELS):
    widths = SMALL.get(kind, (6, 5))
    with rng.seeded(seed, "annotator"):
        if kind == "pixel_mlp":
            return PixelMlp(channels, widths, num_classes)
        config = config_of(kind, released=released, widths=widths)
        return build_projector(config, channels, num_classes)


def levels(px, *, batch=2):
    generator = rng.generator(0, "levels")
    sizes = [2 * px, px, max(px // 2, 1)]
    return [
        torch.randn(batch, count, size, size, generator=generator, dtype=torch.float64)
        for count, size in zip(CHANNELS, sizes, strict=True)
    ]


@pytest.mark.parametrize("num_classes", [2, 34])
@pytest.mark.parametrize(("kind", "released"), CNNS)
def test_cnns_are_those_of_the_sources(kind, released, num_classes):
    config = config_of(kind, released=released)
    with torch.device("meta"):
        net = build_projector(config, (5000, 56), num_classes)
    rows, slope = reference.CNNS[kind, released]
    weights = [p for p in net.parameters() if p.dim() == 4]
    expected, inputs = [], 5056
    for out, taps, _ in rows:
        outputs = num_classes if out == "C" else out
        expected.append((outputs, inputs, taps, taps))
        inputs = outputs
    assert [tuple(w.shape) for w in weights] == expected
    assert config.table().dilations == tuple(dilation for *_, dilation in rows)
    assert net.slope == slope
    assert len([p for p in net.parameters() if p.dim() == 1]) == len(rows)  # all have biases


@pytest.mark.parametrize("px", [1, 5, 9])
@pytest.mark.parametrize(("kind", "released"), CNNS)
def test_cnns_equal_plain_layers_over_the_materialised_hypercolumn(kind, released, px):
    net = small(kind, released=released).double()
    plain = reference.plain_cnn(
        sum(CHANNELS), SMALL[kind], 3, name=kind, released=released
    ).double()
    reference.load(plain, net.state_dict())
    maps = levels(px)
    ours, theirs = net(maps, px), plain(stacked(maps, px))
    assert ours.shape == (2, 3, px, px)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for mine, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(("kind", "released"), CNNS)
def test_receptive_field(kind, released):
    px = 71
    net = small(kind, released=released, channels=(2,)).double()
    level = torch.randn(1, 2, px, px, generator=rng.generator(0, "level"), dtype=torch.float64)
    moved = level.clone()
    moved[:, :, px // 2, px // 2] += 10
    with torch.no_grad():
        changed = (net([level], px) != net([moved], px)).any(1)[0]
    ys, xs = changed.nonzero().T
    side = reference.receptive_field(kind, released)
    assert int(ys.max() - ys.min()) + 1 == side
    assert int(xs.max() - xs.min()) + 1 == side


def test_receptive_field_of_the_released_cnn_is_in_its_name():
    assert reference.receptive_field("cnn_l", True) == 61


@pytest.mark.parametrize("px", [2, 5, 9])
@pytest.mark.parametrize("kind", MLPS)
def test_mlps_equal_linear_layers_on_rows_of_pixels(kind, px):
    net = small(kind).double()
    plain = reference.plain_mlp(sum(CHANNELS), (6, 5), 3, norm=kind == "pixel_mlp").double()
    reference.load(plain, net.state_dict())
    maps = levels(px)
    rows = stacked(maps, px).permute(0, 2, 3, 1).flatten(0, 2)
    for mode in (True, False):  # the statistics of training serve in eval mode
        net.train(mode)
        plain.train(mode)
        theirs = plain(rows).view(2, px, px, 3).permute(0, 3, 1, 2)
        torch.testing.assert_close(net(maps, px), theirs, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "num_classes", "widths"),
    [
        ("pixel_mlp", 2, (128, 32)),
        ("pixel_mlp", 31, (128, 32)),
        ("pixel_mlp", 32, (256, 128)),
        ("pixel_mlp", 34, (256, 128)),
        ("regan_mlp", 2, (2000, 200)),
        ("regan_mlp", 34, (2000, 200)),
    ],
)
def test_sizes_of_the_mlps(kind, num_classes, widths):
    with torch.device("meta"):
        if kind == "pixel_mlp":
            net = PixelMlp((5000, 56), pixel_widths(num_classes), num_classes)
        else:
            net = build_projector(config_of(kind), (5000, 56), num_classes)
    linear = [tuple(p.shape[:2]) for p in net.parameters() if p.dim() == 4]
    assert linear == [(widths[0], 5056), (widths[1], widths[0]), (num_classes, widths[1])]


def test_initialisation_of_the_pixel_mlp():
    with rng.seeded(0, "annotator"):
        net = PixelMlp((200, 300), (64, 40), 30)
    for layer in (net.first, net.second, net.classes):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert float(layer.weight.detach().mean()) == pytest.approx(0, abs=0.003)
        assert not layer.bias.any()
    assert torch.equal(net.norm1.weight.detach(), torch.ones(64))


@pytest.mark.parametrize("members", [1, 3])
def test_stacked_members_equal_single_ones(members):
    sizes = (sum(CHANNELS), 6, 5, 3)
    mlps = StackedPixelMlps(sizes, members=members, seed=0).double()
    generator = rng.generator(0, "rows")
    with torch.no_grad():
        for parameter in mlps.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    rows = torch.randn(members, 8, sizes[0], generator=generator, dtype=torch.float64)
    before = [mlps.member_tensors(i) for i in range(members)]
    trained = mlps(rows)
    after = [mlps.member_tensors(i) for i in range(members)]
    evaluated = mlps.eval()(rows)
    for i in range(members):
        single = PixelMlp(CHANNELS, sizes[1:3], 3).double()
        single.load_state_dict(before[i])
        maps = [part.T[None, :, :, None].contiguous() for part in rows[i].split((4, 3, 2), 1)]
        maps = [level.view(1, -1, 2, 4) for level in maps[::-1]]
        hidden = single.norm1(single.first(maps, (2, 4)).relu())
        hidden = single.norm2(single.second(hidden).relu())
        scores = single.classes(hidden).flatten(2)[0].T
        torch.testing.assert_close(trained[i], scores)
        for name, tensor in single.state_dict().items():
            torch.testing.assert_close(after[i][name], tensor)
        plain = reference.plain_mlp(sizes[0], sizes[1:3], 3, norm=True).double().eval()
        reference.load(plain, single.state_dict())
        torch.testing.assert_close(evaluated[i], plain(rows[i]))


def test_stacked_members_differ_and_do_not_depend_on_their_number():
    two, three = (StackedPixelMlps((50, 8, 6, 3), members=count, seed=0) for count in (2, 3))
    assert not torch.equal(two.weights[0][0], two.weights[0][1])
    assert not torch.equal(
        two.weights[0], StackedPixelMlps((50, 8, 6, 3), members=2, seed=1).weights[0]
    )
    for ours, theirs in zip(two.weights, three.weights, strict=True):
        assert torch.equal(ours, theirs[:2])
    weights = torch.cat([w.detach().flatten() for w in two.weights])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.1)
    assert not any(bias.any() for bias in two.biases)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "regan_m", "widths": (4, 4)}, "regan_m takes 6 positive"),
        ({"kind": "regan_mlp", "widths": (4, 0)}, "2000, 200"),
        ({"kind": "cnn", "widths": ()}, "cnn takes 3 positive"),
        ({"kind": "cnn", "widths": (4, 4), "dilations": (1,)}, "one positive number per hidden"),
        ({"kind": "cnn", "widths": (4, 4), "dilations": (2, 1)}, "the first of them 1"),
        ({"kind": "regan_s", "norm": "none"}, "norm: only kind 'cnn' has them, not 'regan_s'"),
        ({"kind": "mlp", "kernel": 1}, "kernel: only kind 'cnn'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ProjectorConfig, settings)


def test_every_setting_of_a_chain_matters():
    def scores(**settings):
        with rng.seeded(0, "annotator"):
            net = build_projector(ProjectorConfig(**settings), CHANNELS, 3)
        with torch.no_grad():
            return net([level.float() for level in levels(5)], 5)

    base = {"kind": "cnn", "widths": (5, 4)}
    changes = [
        {"kind": "mlp"},
        {"widths": (5, 4, 4)},
        {"kernel": 1},
        {"dilations": (1, 2)},
        {"norm": "none"},
        {"standardise": True},
    ]
    assert {name for change in changes for name in change} == set(ProjectorConfig.model_fields)
    assert torch.equal(scores(**base), scores(**base))
    for change in changes:
        assert not torch.allclose(scores(**base), scores(**(base | change))), change


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_chain_equals_plain_layers(kernel):
    config = ProjectorConfig(kind="cnn", widths=(5, 4), kernel=kernel, dilations=(1, 2))
    with rng.seeded(0, "annotator"):
        net = build_projector(config, CHANNELS, 3).double()
    maps = levels(9)
    first, second, last = (p for p in net.parameters() if p.dim() == 4)
    x = torch.conv2d(stacked(maps, 9), first, net.first.bias, padding=kernel // 2)
    for norm, weight, bias, dilation in (
        (net.norms[0], second, net.rest[0].bias, 2),
        (net.norms[1], last, net.rest[1].bias, 1),
    ):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        x = ((x - mean) / (var + norm.eps).sqrt()).relu()
        pad = weight.shape[-1] // 2 * dilation
        x = torch.conv2d(x, weight, bias, padding=pad, dilation=dilation)
    torch.testing.assert_close(net(maps, 9), x)


def test_widths_of_the_pixel_mlp_turn_at_32_classes():
    assert [pixel_widths(count) for count in (31, 32)] == [(128, 32), (256, 128)]
