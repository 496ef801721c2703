import pytest

from raysweep.config import ConfigError
from raysweep.data.records import Record
from raysweep.data.shots import shot_order, take_shots

TRAIN = [Record(f"{index:02d}", "train") for index in range(20)]
REST = [Record("v", "val"), Record("t", "test"), Record("u", "unlabelled")]


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_larger_subsets_contain_smaller_ones(draw):
    order = shot_order(TRAIN + REST, draw=draw)
    subsets = [set(take_shots(order, k, name="parts")) for k in range(1, 21)]
    assert [len(subset) for subset in subsets] == list(range(1, 21))
    assert all(small < large for small, large in zip(subsets, subsets[1:], strict=False))
    assert subsets[-1] == {record.id for record in TRAIN}


def test_draws_differ_and_repeat():
    orders = [shot_order(TRAIN, draw=draw) for draw in range(5)]
    assert len(set(orders)) == 5
    assert orders == [shot_order(TRAIN, draw=draw) for draw in range(5)]


def test_the_first_shot_is_spread_over_the_images():
    first = [shot_order(TRAIN, draw=draw)[0] for draw in range(1000)]
    assert all(20 <= first.count(record.id) <= 90 for record in TRAIN)  # 50 expected, 6 sigma


def test_draw_0_follows_ranks_and_other_draws_do_not():
    ranked = [Record(record.id, "train", 19 - at) for at, record in enumerate(TRAIN)]
    by_rank = tuple(record.id for record in reversed(TRAIN))
    assert shot_order(ranked, draw=0) == by_rank
    assert shot_order(ranked, draw=1) == shot_order(TRAIN, draw=1) != by_rank


def test_images_without_rank_come_last():
    mixed = [Record("a", "train"), Record("b", "train", 7), Record("c", "train", 0)]
    assert shot_order(mixed, draw=0) == ("c", "b", "a")


def test_adding_an_image_keeps_the_order_of_the_others():
    without = tuple(name for name in shot_order(TRAIN, draw=3) if name != "07")
    rest = [record for record in TRAIN if record.id != "07"]
    assert shot_order(rest, draw=3) == without


def test_one_image_is_a_draw():
    assert take_shots(shot_order(TRAIN[:1], draw=4), 1, name="parts") == ("00",)


@pytest.mark.parametrize("shots", [0, -1])
def test_refuses_no_shots(shots):
    with pytest.raises(ConfigError, match=f"data.shots = {shots}: at least 1"):
        take_shots(("a",), shots, name="parts")


def test_refuses_more_shots_than_images():
    with pytest.raises(ConfigError) as caught:
        take_shots(("a", "b"), 64, name="parts")
    assert str(caught.value) == (
        "data.shots = 64: only 2 labelled training images in parts; "
        "use --set data.shots=2 or label more"
    )
