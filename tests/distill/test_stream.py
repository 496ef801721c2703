"""The order of a stream: shuffled, shared by workers, planned without reading."""

import time
import tracemalloc

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.distill.rows import OpenShard
from raysweep.distill.shards import Manifest, ShardFile
from raysweep.distill.soft import unpack_soft
from raysweep.distill.stream import ShardStream
from tests.distill.pseudo import CLASSES, TEACHER, pixels, row, shards
from tests.distill.stream_cases import COUNTS, epoch, numbers, stream_of
from tests.reference import distill as reference


@pytest.mark.parametrize("counts", [COUNTS, (8, 8), (20,), (1,) * 9])
@pytest.mark.parametrize(("batch", "buffer"), [(1, 0), (2, 6), (4, 12), (4, 100), (8, 0), (3, 8)])
def test_order_is_that_of_the_definition(tmp_path, counts, batch, buffer):
    stream = stream_of(shards(tmp_path, counts), batch=batch, shuffle_buffer=buffer, seed=3)
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    for number_of_epoch in range(2):

        def shuffled(lane, window, rows, at=number_of_epoch):
            draws = rng.numpy_generator(3, "rows", at, lane, window)
            return [rows[place] for place in draws.permutation(len(rows))]

        expected = reference.epoch_order(
            counts,
            rng.numpy_generator(3, "files", number_of_epoch).permutation(len(counts)),
            batch=batch,
            window=max(1, buffer // batch),
            shuffled=shuffled,
        )
        flat = [[starts[file] + at for file, at in step] for step in expected]
        assert epoch(stream) == flat
        assert len(flat) == len(stream) == sum(counts) // batch


def test_batches_are_the_pixels(uneven):
    stream = stream_of(uneven)
    batch = next(iter(stream))
    assert set(batch) == {"image", "mask"}
    assert batch["image"].shape == (4, 3, 4, 5)
    assert {tensor.dtype for tensor in batch.values()} == {torch.uint8}
    for index, image, mask in zip(numbers(batch), batch["image"], batch["mask"], strict=True):
        expected = pixels(index)
        assert torch.equal(image, torch.from_numpy(expected[0]).permute(2, 0, 1))
        assert torch.equal(mask, torch.from_numpy(expected[1]))


def test_soft_labels_come_if_asked_for(tmp_path):
    shard_set = shards(tmp_path, (6,), soft=True)
    assert "soft" not in next(iter(stream_of(shard_set)))
    batch = next(iter(stream_of(shard_set, soft=True)))
    for index, soft in zip(numbers(batch), batch["soft"], strict=True):
        assert torch.equal(soft, unpack_soft(row(index, with_soft=True).soft))


def test_each_row_comes_once_and_the_tail_is_dropped(uneven):
    stream = stream_of(uneven)
    dropped = set()
    for _ in range(12):
        seen = sum(epoch(stream), [])
        assert len(seen) == len(set(seen)) == 36
        dropped |= set(range(37)) - set(seen)
    assert len(dropped) > 1  # it is not always the same row that is never seen


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 12])
def test_workers_share_what_one_worker_reads(uneven, workers):
    alone = stream_of(uneven, batch=12, shuffle_buffer=24)
    parts = [
        stream_of(uneven, batch=12, shuffle_buffer=24, rank=rank, workers=workers)
        for rank in range(workers)
    ]
    for _ in range(2):
        together = [sum(step, []) for step in zip(*map(epoch, parts), strict=True)]
        assert together == epoch(alone)
        assert len(together) == len(alone) == 3


def test_a_worker_reads_its_share_of_the_groups(tmp_path, monkeypatch):
    shard_set, reads = shards(tmp_path, (12,) * 4), []
    read = OpenShard.read
    monkeypatch.setattr(
        OpenShard, "read", lambda self, g, **o: reads.append((self.path, g)) or read(self, g, **o)
    )
    epoch(stream_of(shard_set, rank=1, workers=4, shuffle_buffer=16))
    assert len(reads) == len(set(reads)) == 4  # 12 of 48 rows, three to a group


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch": 5}, {"shuffle_buffer": 24}])
def test_settings_of_the_order_matter(uneven, change):
    base = sum(epoch(stream_of(uneven)), [])
    assert sum(epoch(stream_of(uneven)), []) == base
    assert sum(epoch(stream_of(uneven, **change)), []) != base


def test_order_does_not_depend_on_the_global_generators(uneven):
    base = epoch(stream_of(uneven))
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert epoch(stream_of(uneven)) == base


def test_epochs_differ_and_files_are_shuffled(uneven):
    stream = stream_of(uneven, shuffle_buffer=0)
    first, second = epoch(stream), epoch(stream)
    assert first != second
    orders = {tuple(stream.plan(at).order) for at in range(20)}
    assert len(orders) == 20
    assert all(sorted(order) == list(range(7)) for order in orders)


def test_a_larger_buffer_mixes_further(uneven):
    def distance(buffer):
        lanes = zip(*epoch(stream_of(uneven, batch=2, shuffle_buffer=buffer)), strict=True)
        return sum(abs(a - b) > 1 for lane in lanes for a, b in zip(lane, lane[1:], strict=False))

    assert distance(0) < distance(8) <= distance(100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch = 0: from 1 to the 37 rows"),
        ({"batch": 38}, "batch = 38: from 1 to the 37 rows"),
        ({"workers": 3}, "must divide the batch"),
        ({"workers": 0}, "must divide the batch"),
        ({"workers": 2, "rank": 2}, "ranks count from 0"),
        ({"rank": -1}, "ranks count from 0"),
        ({"shuffle_buffer": -1}, "shuffle_buffer = -1: 0 or more"),
        ({"max_bad_rows": -1}, "max_bad_rows = -1: 0 or more"),
    ],
)
def test_refuses_settings(uneven, change, message):
    with pytest.raises(ConfigError, match=message):
        stream_of(uneven, **change)


def test_planning_ten_million_rows_is_quick_flat_and_reads_nothing():
    rows = [900 + index % 201 for index in range(10_000)]
    entries = tuple(
        ShardFile(name=f"{i}.parquet", rows=n, bytes=1, digest=f"{i}", class_pixels=(1,) * CLASSES)
        for i, n in enumerate(rows)
    )
    manifest = Manifest(
        files=entries, teacher=TEACHER, class_pixels=(10_000,) * CLASSES, fingerprint="simulated"
    )
    start = time.perf_counter()
    tracemalloc.start()
    try:
        stream = ShardStream(
            manifest,
            files=pafs.SubTreeFileSystem("/nonexistent", pafs.LocalFileSystem()),
            root="nowhere",
            seed=0,
            batch=64,
            rank=7,
            workers=8,
            shuffle_buffer=4096,
        )
        for number_of_epoch in range(20):
            plan = stream.plan(number_of_epoch)
            for position in range(0, len(stream) * 64, 100_003):
                plan.locate(position)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(rows) > 9_990_000
    assert len(stream) == sum(rows) // 64
    assert time.perf_counter() - start < 2
    assert peak < 8e6
