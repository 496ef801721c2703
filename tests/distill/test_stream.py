import json
import time
import tracemalloc

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.data.decoding import encode_png
from raysweep.distill.rows import OpenShard, decode
from raysweep.distill.shards import Manifest, ShardError, ShardFile
from raysweep.distill.soft import unpack_soft
from raysweep.distill.stream import ShardStream
from tests.distill.pseudo import (
    BAD_ROWS,
    CLASSES,
    TEACHER,
    number,
    pixels,
    row,
    shards,
    write_unchecked,
)
from tests.reference import distill as reference

COUNTS = (7, 1, 0, 12, 3, 9, 5)  # 37 rows, uneven


def made(root, counts=COUNTS, **options):
    return shards(root, counts, **options)


def stream_of(shard_set, **options):
    files, root, manifest = shard_set
    options = {"seed": 0, "batch": 4, "shuffle_buffer": 12} | options
    return ShardStream(manifest, files=files, root=root, **options)


def numbers(batch):
    return [number(image) for image in batch["image"]]


def epoch(stream):
    return [numbers(batch) for batch in stream]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    return made(tmp_path_factory.mktemp("uneven"))


# order


@pytest.mark.parametrize("counts", [COUNTS, (8, 8), (20,), (1,) * 9])
@pytest.mark.parametrize(("batch", "buffer"), [(1, 0), (2, 6), (4, 12), (4, 100), (8, 0), (3, 8)])
def test_order_is_that_of_the_definition(tmp_path, counts, batch, buffer):
    stream = stream_of(made(tmp_path, counts), batch=batch, shuffle_buffer=buffer, seed=3)
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
    shard_set = made(tmp_path, (6,), soft=True)
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
    shard_set, reads = made(tmp_path, (12,) * 4), []
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


# resuming


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
        stream_of(made(tmp_path, (37,))).load_state_dict(stream_of(uneven).state_dict())


# settings


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


# damage


def damaged(root, bad, *, count=12, group=3):
    """A set of one file in which the rows in ``bad`` are changed."""
    files, root, manifest = made(root, (count,))
    rows = [row(i, **bad.get(i, {})) for i in range(count)]
    path = f"{root}/part-000000.parquet"
    write_unchecked(path, rows, group=group)
    size = files.get_file_info(path).size
    entry = manifest.files[0].model_copy(update={"bytes": size})
    return files, root, manifest.model_copy(update={"files": (entry,)})


@pytest.mark.parametrize("what", [name for name in BAD_ROWS if not name.startswith("soft")])
def test_stops_at_a_bad_row_and_names_it(tmp_path, what):
    changes, message = BAD_ROWS[what]
    with pytest.raises(ShardError) as caught:
        epoch(stream_of(damaged(tmp_path, {7: changes})))
    path = f"{tmp_path}/part-000000.parquet"
    assert str(caught.value).startswith(f"{path}: row group 2, row 1 ('i7'): ")
    assert message in str(caught.value)


def test_missing_soft_labels_are_named(uneven):
    with pytest.raises(ShardError, match=r"row group \d, row \d .*no soft labels"):
        epoch(stream_of(uneven, soft=True))


BAD = {2: {"mask": b"x"}, 7: {"image": b"x"}, 8: {"mask": None}}


def test_bad_rows_are_skipped_counted_and_listed(tmp_path):
    shard_set = damaged(tmp_path, BAD)
    stream = stream_of(shard_set, batch=2, max_bad_rows=3)
    straight = stream_of(made(tmp_path / "good", (12,)), batch=2)
    for _ in range(3):
        skipping, plain = epoch(stream), epoch(straight)
        assert len(skipping) == len(plain)
        for batch, expected in zip(skipping, plain, strict=True):
            for got, wanted in zip(batch, expected, strict=True):
                assert got == wanted if wanted not in BAD else got not in BAD
    found = sorted(stream.bad_rows)
    assert [(bad.group, bad.at, bad.id) for bad in found] == [
        (0, 2, "i2"),
        (2, 1, "i7"),
        (2, 2, "i8"),
    ]
    assert [bad.reason.split(":")[0] for bad in found] == ["mask", "image", "no mask; label again"]
    again = stream_of(shard_set, batch=2, max_bad_rows=3)
    for _ in range(3):
        epoch(again)
    assert again.bad_rows == stream.bad_rows


def test_replacements_do_not_depend_on_workers_or_on_resuming(tmp_path):
    shard_set = damaged(tmp_path, BAD)
    options = {"batch": 4, "max_bad_rows": 3}
    alone = stream_of(shard_set, **options)
    expected = epoch(alone)
    parts = [stream_of(shard_set, rank=rank, workers=4, **options) for rank in range(4)]
    assert [sum(step, []) for step in zip(*map(epoch, parts), strict=True)] == expected
    assert sorted({bad for part in parts for bad in part.bad_rows}) == sorted(alone.bad_rows)
    for stop in range(len(expected)):
        first, second = (stream_of(shard_set, **options) for _ in range(2))
        before = [numbers(batch) for _, batch in zip(range(stop), first, strict=False)]
        second.load_state_dict(first.state_dict())
        assert before + epoch(second) == expected
        assert sorted(second.bad_rows) == sorted(alone.bad_rows)


def test_stops_when_too_many_rows_are_bad(tmp_path):
    stream = stream_of(damaged(tmp_path, BAD), batch=2, max_bad_rows=2)
    with pytest.raises(ShardError, match="2 bad rows were skipped before, max_bad_rows = 2"):
        epoch(stream)


def test_stops_when_no_row_is_left(tmp_path):
    stream = stream_of(damaged(tmp_path, dict.fromkeys(range(12), {"mask": b"x"})), max_bad_rows=99)
    with pytest.raises(ShardError, match="no usable row in lane 0"):
        epoch(stream)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "empty file"),
        (lambda data: data[:-9], "truncated or replaced"),
        (lambda data: b"x" * len(data), "damaged Parquet file"),
        (None, "missing"),
    ],
)
def test_a_bad_file_stops_the_stream_whatever_rows_may_be_skipped(tmp_path, damage, message):
    shard_set = made(tmp_path, (6, 6))
    path = tmp_path / "part-000001.parquet"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ShardError, match=message) as caught:
        epoch(stream_of(shard_set, max_bad_rows=99))
    assert str(caught.value).startswith(f"{path}: ")


def test_names_the_row_of_another_size(tmp_path):
    small = np.zeros((3, 3), dtype=np.uint8)
    other = {"image": encode_png(np.zeros((3, 3, 3), dtype=np.uint8)), "mask": encode_png(small)}
    shard_set = damaged(tmp_path, {5: other})
    message = r"row group 1, row 2 \('i5'\): image of shape \(3, 3, 3\), others"
    with pytest.raises(ShardError, match=message):
        # one lane after the other, so that row 5 is not the first of its batch
        epoch(stream_of(shard_set, batch=12))

    def squeezed(made_row):
        return {k: v[..., :3, :3] for k, v in decode(made_row, num_classes=CLASSES).items()}

    assert len(list(stream_of(shard_set, batch=12, decode=squeezed))) == 1


# size


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
