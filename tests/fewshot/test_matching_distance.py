import pytest
import torch

from raysweep import rng
from raysweep.fewshot.matching_distance import matching_distance, unit_distance
from tests.reference import matching as reference

SHAPES = [(4, 3, 3, 3), (4,), (5, 4, 1, 1), (2, 7), (3, 2, 2)]


def gradients(seed, scale=1.0, shapes=SHAPES):
    stream = rng.generator(seed, "gradients")
    return [scale * torch.randn(s, generator=stream, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("shapes", [SHAPES, SHAPES[:1], SHAPES[:2], SHAPES[1:4]])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7, 0.0])
def test_equals_the_definition(shapes, scale):
    ours, theirs = gradients(0, scale, shapes), gradients(1, shapes=shapes)
    for normaliser in ("paper", "released"):
        found = matching_distance(ours, theirs, normaliser=normaliser)
        expected = reference.distance(ours, theirs, all_count=normaliser == "released")
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_equal_gradients_are_0_apart_and_opposite_ones_2():
    ours = gradients(0)
    for factor, expected in ((1.0, 0.0), (3.0, 0.0), (-1.0, 2.0), (-0.1, 2.0)):
        theirs = [factor * each for each in ours]
        found = matching_distance(ours, theirs, normaliser="paper")
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_units_count_alike_whatever_their_size():
    ours = [torch.eye(3)]
    theirs = [torch.tensor([[5.0, 0, 0], [0, -1e-2, 0], [0, 0, 1e3]])]
    assert float(unit_distance(ours[0], theirs[0])) == pytest.approx(2 / 3)


def test_zero_gradients_have_a_finite_distance_and_derivative():
    ours = [torch.zeros(2, 3, requires_grad=True), torch.zeros(4, 2, 1, 1, requires_grad=True)]
    theirs = [torch.ones(2, 3), torch.zeros(4, 2, 1, 1)]
    found = matching_distance(ours, theirs, normaliser="paper")
    assert float(found.detach()) == 1
    for each in torch.autograd.grad(found, ours):
        assert each.isfinite().all()


def test_tensors_left_out_of_the_lists_can_be_counted():
    ours, theirs = gradients(0), gradients(1)
    rows = [0, 2, 3, 4]
    whole = matching_distance(ours, theirs, normaliser="released")
    part = [[each[at] for at in rows] for each in (ours, theirs)]
    assert torch.equal(matching_distance(*part, normaliser="released", tensors=5), whole)
    assert not torch.equal(matching_distance(*part, normaliser="released"), whole)
    paper = matching_distance(*part, normaliser="paper", tensors=5)
    assert float(paper / whole) == pytest.approx(5 / 4)


def test_without_rows_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="no matched tensor has two axes"):
        matching_distance([torch.ones(3)], [torch.ones(3)], normaliser="paper")
    with pytest.raises(ValueError, match="shorter"):
        matching_distance([torch.ones(3, 1)], [], normaliser="paper")
