"""A stream goes on where it stopped, with any number of workers, in its own shards only."""

import json

import pytest

from raysweep.config import ConfigError
from raysweep.distill.rows import decode
from tests.distill.pseudo import CLASSES, shards
from tests.distill.stream_cases import epoch, numbers, stream_of


@pytest.mark.parametrize("stop", [0, 1, 2, 5, 8, 9, 10, 13, 18])
def test_resumed_equals_straight_through(uneven, stop):
    straight, first = stream_of(uneven), stream_of(uneven)
    expected = epoch(straight) + epoch(straight)

    def endless(stream):
        while True:
            yield from stream

    batches = endless(first)
    before = [numbers(next(batches)) for _ in range(stop)]
    state = json.loads(json.dumps(first.state_dict()))
    assert (state["epoch"], state["rows"]) == (stop // 9, stop % 9 * 4)
    decoded = []

    def counting(made_row):
        decoded.append(made_row.id)
        return decode(made_row, num_classes=CLASSES)

    second = stream_of(uneven, decode=counting)
    second.load_state_dict(state)
    rest = endless(second)
    after = [numbers(next(rest)) for _ in range(18 - stop)]
    assert before + after == expected
    assert decoded == [f"i{index}" for index in sum(after, [])]  # nothing that was skipped
    if stop < 18:
        assert second.state_dict() == straight.state_dict()


def test_another_number_of_workers_may_continue(uneven):
    expected = epoch(stream_of(uneven))
    first = stream_of(uneven, rank=1, workers=4)
    batches = iter(first)
    for _ in range(3):
        next(batches)
    parts = [stream_of(uneven, rank=rank, workers=2) for rank in range(2)]
    for part in parts:
        part.load_state_dict(first.state_dict())
    assert [sum(step, []) for step in zip(*map(epoch, parts), strict=True)] == expected[3:]


def test_an_abandoned_epoch_continues_where_it_stopped(uneven):
    stream = stream_of(uneven)
    first = [numbers(batch) for _, batch in zip(range(3), stream, strict=False)]
    assert first + epoch(stream) == epoch(stream_of(uneven))


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch": 2}, {"shuffle_buffer": 24}])
def test_refuses_a_position_of_another_stream(uneven, change):
    with pytest.raises(ConfigError, match="saved position belongs to other shards"):
        stream_of(uneven, **change).load_state_dict(stream_of(uneven).state_dict())


def test_refuses_a_position_in_other_shards(uneven, tmp_path):
    with pytest.raises(ConfigError, match="belongs to other shards"):
        stream_of(shards(tmp_path, (37,))).load_state_dict(stream_of(uneven).state_dict())
