"""Ray Data in front of a training: the plain reader's batches, whatever happens to the decoders."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from raysweep.config import ConfigError
from raysweep.distill.feed import Feed
from raysweep.distill.stream import ShardStream
from raysweep.orchestration.on_ray import streaming
from raysweep.orchestration.on_ray.parallel import Step, pipeline
from raysweep.orchestration.on_ray.streaming import ParallelReader
from tests.distill.pseudo import row, shards, write_unchecked

COUNTS = (7, 1, 12, 3, 9, 5)  # 37 rows: 9 batches of 4

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def stream_of(shard_set, **options):
    files, root, manifest = shard_set
    options = {"seed": 0, "batch": 4, "shuffle_buffer": 12, "soft": True} | options
    return ShardStream(manifest, files=files, root=root, **options)


def batches(stream, start, end, reader=None):
    feed = Feed(stream, steps=end, read=reader)
    try:
        return [feed.batch_at(step) for step in range(start, end)]
    finally:
        feed.close()


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_batches_are_those_of_the_plain_reader(cluster, tmp_path, monkeypatch):
    made, start = shards(tmp_path, COUNTS, soft=True), 11
    options = {"rank": 1, "workers": 2}
    expected = batches(stream_of(made, **options), start, 22)
    monkeypatch.setattr(streaming, "STEPS", 3)
    monkeypatch.setattr(streaming, "LANES", 1)
    stream = stream_of(made, **options)
    assert_same(batches(stream, start, 22, ParallelReader(stream, decoders=2)), expected)


def test_bad_rows_are_skipped_counted_and_named_alike(cluster, tmp_path):
    files, root, manifest = shards(tmp_path, (8, 8))
    rows = [row(at, **({"mask": b"nothing"} if at in (2, 5) else {})) for at in range(8)]
    entry = manifest.files[0]
    write_unchecked(tmp_path / entry.name, rows)
    entry = entry.model_copy(update={"bytes": (tmp_path / entry.name).stat().st_size})
    made = files, root, manifest.model_copy(update={"files": (entry, manifest.files[1])})
    plain = stream_of(made, max_bad_rows=2, soft=False)
    expected = batches(plain, 0, 8)
    stream = stream_of(made, max_bad_rows=2, soft=False)
    assert_same(batches(stream, 0, 8, ParallelReader(stream, decoders=1)), expected)
    assert set(stream.bad_rows) == set(plain.bad_rows)


class Slow:
    """Says which process it is in."""

    def __init__(self, offset):
        self.offset = offset

    def __call__(self, unit):
        return unit + self.offset, os.getpid()


def double(factor, unit):
    if unit == 13:
        raise ConfigError("unit 13 is unlucky")
    return factor * unit


def test_units_come_in_order_over_several_legs_and_steps(cluster):
    steps = [Step(double, (2,), size=2), Step(Slow, (100,))]
    looked_at = []

    def units():
        for at in range(10):
            looked_at.append(at)
            yield at

    found = []
    for value, _ in pipeline(units(), steps, leg=6, overlap=1):
        found.append(value)
        assert max(looked_at) < len(found) + 2 * 6, "units are looked at long before their turn"
    assert found == [2 * at + 100 for at in range(10)]
    assert list(pipeline(iter(()), steps)) == []


def test_an_exception_of_a_step_arrives_as_it_was(cluster):
    with pytest.raises(ConfigError, match=r"^unit 13 is unlucky$"):
        list(pipeline([12, 13, 14], [Step(double, (2,)), Step(double, (3,))]))


def test_a_killed_process_is_replaced_and_nothing_is_lost(cluster):
    found = []
    for value, process in pipeline(range(60), [Step(Slow, (0,))], leg=60):
        found.append(value)
        if value == 10:
            os.kill(process, signal.SIGKILL)
    assert found == list(range(60))
