import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict
from raysweep.nets.fpn import Fpn, FpnConfig, resize
from tests.reference import matching as reference

CHANNELS = (3, 5, 4)


def levels(sizes=(16, 8, 4), channels=CHANNELS, dtype=torch.float64):
    stream = rng.generator(0, "levels", *sizes)
    return [
        torch.randn(2, count, size, size, generator=stream, dtype=dtype)
        for count, size in zip(channels, sizes, strict=True)
    ]


def small(width=6, depth=3, channels=CHANNELS, num_classes=3):
    with rng.seeded(0, "fpn"):
        return Fpn(FpnConfig(width=width, depth=depth), channels, num_classes).double()


def copied(net):
    plain = reference.PlainFpn(net.channels, 6, 3).double()
    ours = [*net.lateral, *(each for each in net.head if any(True for _ in each.parameters()))]
    for mine, other in zip(ours, plain.children(), strict=True):
        other.load_state_dict(mine.state_dict())
    return plain


@pytest.mark.parametrize("sizes", [(16, 8, 4), (8, 8, 4), (12, 5, 5), (9, 7, 1)])
@pytest.mark.parametrize("train", [True, False])
def test_equals_layers_written_out(sizes, train):
    net = small().train(train)
    plain = copied(net).train(train)
    maps = levels(sizes)
    torch.testing.assert_close(net(maps, sizes[0]), plain(*maps), atol=1e-12, rtol=1e-12)


def test_sizes_of_the_released_code():
    with torch.device("meta"):
        net = Fpn(FpnConfig(), (64, 512), 8)
    shapes = [tuple(each.shape) for each in net.parameters()]
    assert shapes[:4] == [(128, 64, 1, 1), (128,), (128, 512, 1, 1), (128,)]
    assert [shape for shape in shapes if shape[2:] == (3, 3)] == [
        (128, 128, 3, 3),
        (128, 128, 3, 3),
        (8, 128, 3, 3),
    ]
    assert shapes[-1] == (8,)


def test_scores_are_resized_at_the_end():
    net, maps = small().eval(), levels()
    whole = net(maps, 16)
    assert torch.equal(net(maps, 8), resize(whole, 8))
    # antialiasing: halving by a triangle filter of support 2, no pixel is left out
    inner = (whole[:, :, 1:-1, 1:-1].unfold(2, 4, 2).unfold(3, 4, 2)).double()
    taps = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 8
    expected = torch.einsum("bcyxij,i,j->bcyx", inner, taps, taps)
    torch.testing.assert_close(net(maps, 8)[:, :, 1:-1, 1:-1], expected)


def test_every_level_counts_and_the_sizes_matter():
    net, maps = small().eval(), levels()
    base = net(maps, 16)
    for at in range(3):
        other = [each + (index == at) for index, each in enumerate(maps)]
        assert not torch.allclose(net(other, 16), base)
    assert len(list(small(depth=1).parameters())) == 2 * 3 + 2
    assert small(width=7).head[0].weight.shape == (7, 7, 3, 3)


def test_levels_of_another_generator_are_refused():
    with pytest.raises(ValueError, match=r"levels have \(4, 5, 3\) channels: expected \(3, 5, 4\)"):
        small()(levels()[::-1], 16)


@pytest.mark.parametrize("name", ["width", "depth"])
def test_sizes_are_positive(name):
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        from_dict(FpnConfig, {name: 0})
