"""Bad rows are named, or skipped and counted; a bad file stops the stream."""

import numpy as np
import pytest

from raysweep.data.decoding import encode_png
from raysweep.distill.rows import decode
from raysweep.distill.shards import ShardError
from tests.distill.pseudo import BAD_ROWS, CLASSES, row, shards, write_unchecked
from tests.distill.stream_cases import epoch, numbers, stream_of


def damaged(root, bad, *, count=12, group=3):
    """A set of one file in which the rows in ``bad`` are changed."""
    files, root, manifest = shards(root, (count,))
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
    straight = stream_of(shards(tmp_path / "good", (12,)), batch=2)
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
    shard_set = shards(tmp_path, (6, 6))
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
