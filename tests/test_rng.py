import pytest
import torch

from raysweep import rng

VIEWS_3 = 1559286750518746295  # a change here changes every result ever stored


def draw(seed, *names):
    return torch.rand(4, generator=rng.generator(seed, *names)).tolist()


def test_a_stream_is_the_same_whatever_ran_before():
    first = draw(0, "views", 3)
    draw(0, "views", 2)
    torch.rand(100)
    assert draw(0, "views", 3) == first


@pytest.mark.parametrize(
    "other",
    [(1, "views", 3), (0, "order", 3), (0, "views", 4), (0, "views"), (0, "views", 3, 0)],
)
def test_seed_and_every_name_tell_streams_apart(other):
    assert draw(*other) != draw(0, "views", 3)
    assert rng.derive(*other) != rng.derive(0, "views", 3)


def test_derived_seeds_do_not_change_between_versions_and_fit_63_bits():
    assert rng.derive(0, "views", 3) == VIEWS_3
    assert all(0 <= rng.derive(seed, "x") < 2**63 for seed in range(200))


def test_numpy_streams_follow_the_same_names():
    first = rng.numpy_generator(0, "draw", 1).random(3).tolist()
    assert rng.numpy_generator(0, "draw", 1).random(3).tolist() == first
    assert rng.numpy_generator(0, "draw", 2).random(3).tolist() != first


def test_seeded_block_is_repeatable_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    with rng.seeded(0, "weights"):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with rng.seeded(0, "weights"):
        assert torch.equal(torch.rand(3), first)
    with rng.seeded(1, "weights"):
        assert not torch.equal(torch.rand(3), first)


def test_seeded_restores_the_state_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), rng.seeded(0, "weights"):
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)
