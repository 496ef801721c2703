"""Batches by step: read ahead, resumed, laid together from stretches."""

import itertools
import threading
import time

import pytest
import torch

from raysweep.distill.feed import Ahead, Feed
from raysweep.distill.shards import ShardError
from raysweep.distill.stream import ShardStream
from tests.distill.pseudo import number, row, shards, write_unchecked

COUNTS = (7, 1, 12, 3, 9, 5)  # 37 rows: 9 batches of 4


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("uneven"), COUNTS)


def stream_of(shard_set, **options):
    files, root, manifest = shard_set
    options = {"seed": 0, "batch": 4, "shuffle_buffer": 12} | options
    return ShardStream(manifest, files=files, root=root, **options)


def numbers(batch):
    return [number(image) for image in batch["image"]]


def several_epochs(shard_set, **options):
    stream = stream_of(shard_set, **options)
    return [numbers(batch) for _ in range(3) for batch in stream]


def test_steps_in_order_are_the_epochs_of_the_stream(uneven):
    expected = several_epochs(uneven)
    feed = Feed(stream_of(uneven), steps=len(expected))
    assert [numbers(feed.batch_at(step)) for step in range(len(expected))] == expected
    feed.close()


@pytest.mark.parametrize("start", [1, 8, 9, 10, 20])
def test_a_resumed_feed_goes_on_at_the_step(uneven, start):
    expected = several_epochs(uneven)
    feed = Feed(stream_of(uneven), steps=len(expected))
    found = [numbers(feed.batch_at(step)) for step in range(start, len(expected))]
    assert found == expected[start:]
    assert numbers(feed.batch_at(2)) == expected[2], "a step is asked for out of order"
    feed.close()


@pytest.mark.parametrize(("workers", "rank"), [(1, 0), (2, 1), (4, 2)])
@pytest.mark.parametrize("buffer", [0, 12, 100])
def test_stretches_laid_side_by_side_are_the_batches(uneven, workers, rank, buffer):
    options = {"workers": workers, "rank": rank, "shuffle_buffer": buffer}
    expected = several_epochs(uneven, **options)
    stream = stream_of(uneven, **options)
    own = 4 // workers
    for epoch, (first, count) in itertools.product(range(3), [(0, 2), (2, 5), (7, 2)]):
        lanes = [range(rank * own, rank * own + 1), range(rank * own + 1, (rank + 1) * own)]
        parts = [stream.stretch(epoch, range(first, first + count), r) for r in lanes if len(r)]
        for at in range(count):
            batch = {"image": torch.cat([part.batches["image"][at] for part in parts])}
            assert numbers(batch) == expected[epoch * 9 + first + at]


@pytest.fixture
def with_bad_rows(tmp_path):
    made = shards(tmp_path, (8, 8))
    rows = [row(at) for at in range(8)]
    for at in (2, 3, 6):
        rows[at] = row(at, mask=b"nothing")
    name = made[2].files[0]
    write_unchecked(tmp_path / name.name, rows)
    entry = name.model_copy(update={"bytes": (tmp_path / name.name).stat().st_size})
    return made[0], made[1], made[2].model_copy(update={"files": (entry, made[2].files[1])})


def test_stretches_find_the_bad_rows_that_iterating_finds(with_bad_rows):
    plain = stream_of(with_bad_rows, max_bad_rows=3)
    expected = [numbers(batch) for batch in plain]
    stream = stream_of(with_bad_rows, max_bad_rows=3)
    part = stream.stretch(0, range(4), range(4))
    assert [numbers({"image": images}) for images in part.batches["image"]] == expected
    for _, _, bad in sorted(part.bad_rows, key=lambda found: found[:2]):
        stream.skipped(bad)
        stream.skipped(bad)  # met again: counted once
    assert stream.bad_rows == plain.bad_rows
    assert len(plain.bad_rows) == 3


def test_one_bad_row_too_many_is_named(with_bad_rows):
    stream = stream_of(with_bad_rows, max_bad_rows=2)
    found = stream.stretch(0, range(4), range(4)).bad_rows
    with pytest.raises(ShardError, match=r"part-000000\.parquet: row group \d, row \d .*raise it"):
        [stream.skipped(bad) for _, _, bad in found]
    feed = Feed(stream_of(with_bad_rows), steps=4)
    with pytest.raises(ShardError, match="mask: unreadable or truncated"):
        [feed.batch_at(step) for step in range(4)]
    feed.close()


def test_skipped_rows_are_part_of_the_state(with_bad_rows):
    feed = Feed(stream_of(with_bad_rows, max_bad_rows=3), steps=8)
    expected = [numbers(feed.batch_at(step)) for step in range(8)]
    state = feed.state_dict()
    feed.close()
    again = Feed(stream_of(with_bad_rows, max_bad_rows=3), steps=8)
    again.load_state_dict(state)
    assert again.stream.bad_rows == feed.stream.bad_rows != ()
    assert [numbers(again.batch_at(step)) for step in range(4, 8)] == expected[4:]
    again.close()


def test_waiting_is_measured_without_the_first_batch(uneven):
    def slow(start, end):
        time.sleep(0.3)
        for _ in range(start, end):
            time.sleep(0.02)
            yield {}

    feed = Feed(stream_of(uneven), steps=10, read=slow)
    for step in range(10):
        feed.batch_at(step)
    assert feed.first_seconds > 0.3
    assert 0.1 < feed.waited < feed.first_seconds + 1
    assert 0.5 < feed.waiting_share <= 1
    feed.close()
    patient = Feed(stream_of(uneven), steps=10, read=slow)
    for step in range(10):
        patient.batch_at(step)
        time.sleep(0.05)
    assert patient.waiting_share < 0.3
    patient.close()


def test_reading_ahead_is_bounded_and_ends_with_the_reader():
    read, closed = [], threading.Event()

    def endless():
        try:
            for at in itertools.count():
                read.append(at)
                yield at
        finally:
            closed.set()

    ahead = Ahead(endless(), depth=2)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.2)
    assert max(read) <= 3 + 2
    ahead.close()
    assert closed.wait(2)


def test_an_error_comes_where_it_belongs():
    def failing():
        yield 1
        raise ShardError("damaged")

    ahead = Ahead(failing())
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(ShardError, match="damaged"):
            next(ahead)
    assert list(Ahead(iter([1, 2]))) == [1, 2]
