import math

import pytest
import torch
from torch import nn

from raysweep import rng
from raysweep.fewshot.ensemble import (
    Ensemble,
    Majority,
    image_uncertainty,
    jensen_shannon,
    keep_certain,
    votes,
)
from tests.reference import ensemble as reference

SIZES = [(1, 1, 2, 1, 1), (2, 2, 3, 2, 3), (10, 1, 4, 3, 2), (5, 2, 2, 1, 4)]


def drawn(shape, *, sharp=1.0):
    return torch.randn(shape, generator=rng.generator(0, "scores"), dtype=torch.float64) * sharp


class Fixed(nn.Module):
    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, levels, px):
        return self.scores[..., :px, :px] + levels[0]


def winner(logits):
    """The label that most members choose, as the teacher and the evaluation take it."""
    return votes(logits).argmax(1)


@pytest.mark.parametrize("shape", SIZES)
def test_votes_equal_the_loops(shape):
    logits = drawn(shape).round()  # rounded: members tie as well
    labels = winner(logits)
    assert labels.shape == (shape[1], *shape[3:])
    for (image, y, x), label in zip(
        torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist(),
        labels.flatten().tolist(),
        strict=True,
    ):
        assert label == reference.winner(logits[:, image, :, y, x].tolist())


def test_the_smallest_of_equally_many_votes_wins():
    one_each = torch.eye(3)[[2, 0, 1]].view(3, 1, 3, 1, 1)
    assert winner(one_each).item() == 0
    assert winner(one_each[[0, 2]]).item() == 1
    assert winner(one_each[[0, 2, 0]]).item() == 2


@pytest.mark.parametrize("sharp", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("shape", SIZES)
def test_divergence_equals_the_loops(shape, sharp):
    p = drawn(shape, sharp=sharp).softmax(2)
    found = jensen_shannon(p)
    for image, y, x in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        expected = reference.disagreement(p[:, image, :, y, x].tolist())
        assert float(found[image, y, x]) == pytest.approx(expected, abs=1e-12)


def test_divergence_ends_at_none_and_at_the_logarithm_of_the_members():
    apart = torch.eye(4).view(4, 1, 4, 1, 1)
    assert jensen_shannon(apart).item() == pytest.approx(math.log(4))
    assert jensen_shannon(apart[[1, 1, 1]]).item() == 0
    alike = drawn((1, 2, 3, 4, 4)).softmax(2).float().expand(7, -1, -1, -1, -1)
    assert 0 <= float(jensen_shannon(alike).min()) <= float(jensen_shannon(alike).max()) < 1e-6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (2, 5), (4, 5), (7, 13)])
def test_image_uncertainty_equals_the_loops(height, width):
    values = torch.rand(3, height, width, generator=rng.generator(0, "js"), dtype=torch.float64)
    expected = [reference.image_score(image.flatten().tolist()) for image in values]
    assert image_uncertainty(values).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("portion", [0.0, 0.1, 0.25, 0.9])
@pytest.mark.parametrize("count", [31, 100, 400])
def test_filter_equals_the_loops(count, portion, released):
    scores = torch.rand(count, generator=rng.generator(0, "uncertainty")).mul(50).round()
    kept = keep_certain(scores, portion, released=released)
    assert kept.tolist() == reference.kept(scores.tolist(), portion, released=released)


def test_filter_by_hand():
    scores = torch.arange(400).flip(0)
    as_in_paper = keep_certain(scores, 0.1, released=False)
    assert as_in_paper.tolist() == list(range(399, 39, -1))
    released = keep_certain(scores, 0.1, released=True)
    assert released.tolist() == list(range(369, 9, -1))  # 30 certain ones and 40 - 30 others gone


@pytest.mark.parametrize("portion", [-0.1, 1.0])
def test_portion_out_of_range_is_refused(portion):
    with pytest.raises(ValueError, match=r"portion = .*\[0, 1\)"):
        keep_certain(torch.rand(4), portion, released=False)


def test_a_filter_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="no image is left of 30"):
        keep_certain(torch.zeros(30), 0.0, released=True)
    assert len(keep_certain(torch.zeros(31), 0.0, released=True)) == 1


def test_ensemble_stacks_its_members_and_the_majority_counts_their_votes():
    logits = drawn((3, 2, 4, 5, 5)).float()
    ensemble = Ensemble([Fixed(scores) for scores in logits])
    shift = torch.full((2, 1, 1, 1), 0.25)
    torch.testing.assert_close(ensemble([shift], 3), logits[..., :3, :3] + 0.25)
    counted = Majority(ensemble)([shift], 3)
    assert bool((counted.sum(1) == 3).all())
    assert torch.equal(counted.argmax(1), winner(logits[..., :3, :3]))


def test_members_are_modules_of_the_ensemble():
    ensemble = Ensemble([nn.BatchNorm2d(2), nn.BatchNorm2d(2)]).eval()
    assert not any(member.training for member in ensemble.members)
    assert len(list(ensemble.parameters())) == 4
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
