import pytest
import torch

from raysweep import rng
from raysweep.evaluate.frechet import Moments, frechet_distance
from tests.reference import frechet as reference


def features(count, dim, *, name="features"):
    generator = rng.generator(0, name)
    mixed = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    rows = torch.randn(count, dim, generator=generator, dtype=torch.float64) @ mixed
    return rows + torch.randn(dim, generator=generator, dtype=torch.float64)


def moments(rows):
    found = Moments(rows.shape[1])
    found.update(rows)
    return found


def distance(a, b):
    return frechet_distance(a.mean(), a.covariance(), b.mean(), b.covariance())


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("count", [2, 3, 17])
def test_moments_equal_the_loops(count, dim):
    rows = features(count, dim)
    found = moments(rows)
    assert found.count == count
    assert found.mean().tolist() == pytest.approx(reference.mean(rows.tolist()))
    expected = torch.tensor(reference.covariance(rows.tolist()), dtype=torch.float64)
    torch.testing.assert_close(found.covariance(), expected, atol=1e-10, rtol=1e-8)


def test_features_may_arrive_in_parts():
    rows = features(20, 4).float()
    whole, parts = moments(rows), Moments(4)
    for part in rows.split(7):
        parts.update(part)
    assert parts.count == whole.count
    torch.testing.assert_close(parts.mean(), whole.mean(), atol=1e-12, rtol=0)
    torch.testing.assert_close(parts.covariance(), whole.covariance(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 32])
def test_distance_equals_the_reference(dim):
    a, b = moments(features(3 * dim + 2, dim)), moments(features(3 * dim + 2, dim, name="others"))
    expected = reference.distance(
        a.mean().tolist(),
        a.covariance().tolist(),
        b.mean().tolist(),
        b.covariance().tolist(),
    )
    assert distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert distance(b, a) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("spread_a", "spread_b"), [(1.0, 1.0), (3.0, 0.5), (2.0, 0.0)])
def test_distance_of_two_normals_on_a_line(spread_a, spread_b):
    found = frechet_distance(
        torch.tensor([1.0]),
        torch.tensor([[spread_a**2]]),
        torch.tensor([4.0]),
        torch.tensor([[spread_b**2]]),
    )
    assert found == pytest.approx(9 + (spread_a - spread_b) ** 2)


def test_distance_of_axis_aligned_normals_adds_up():
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 0.0])
    zero = torch.zeros(3)
    found = frechet_distance(zero, a.diag(), zero, b.diag())
    assert found == pytest.approx(1 + 0 + 9)


@pytest.mark.parametrize("count", [3, 50])
def test_a_set_is_no_distance_from_itself_even_with_singular_covariance(count):
    rows = features(count, 16)
    assert distance(moments(rows), moments(rows)) == pytest.approx(0, abs=1e-4)
    assert distance(moments(rows), moments(rows + 0.5)) == pytest.approx(16 * 0.25, abs=1e-4)


def test_what_cannot_be_measured_is_refused():
    single = moments(features(1, 3))
    with pytest.raises(ValueError, match="two feature vectors or more, saw 1"):
        single.covariance()
    with pytest.raises(ValueError, match="at least one"):
        Moments(3).mean()
    with pytest.raises(ValueError, match=r"shape \(2, 4\): expected \(count, 3\)"):
        single.update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="NaN"):
        single.update(torch.full((2, 3), float("nan")))
    with pytest.raises(ValueError, match="do not belong together"):
        frechet_distance(torch.zeros(3), torch.eye(3), torch.zeros(4), torch.eye(4))
