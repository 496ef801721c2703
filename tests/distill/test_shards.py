"""Shards and their manifest: written whole or not at all, read back as they were."""

import hashlib
import json
import re

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch

from raysweep.config import ConfigError, from_dict, override
from raysweep.data.decoding import encode_png
from raysweep.distill.rows import SCHEMA, VERSION_KEY, OpenShard, decode, row_of, verify
from raysweep.distill.shards import (
    ShardError,
    ShardsConfig,
    ShardWriter,
    read_manifest,
    write_manifest,
    write_shard,
    write_shards,
)
from raysweep.distill.soft import quantise_soft
from tests.distill.pseudo import (
    BAD_ROWS,
    CLASSES,
    LOCAL,
    TEACHER,
    jpeg,
    pixels,
    probabilities,
    row,
    shards,
)


def all_rows(path, files=LOCAL):
    shard = OpenShard(files, str(path))
    tables = [(shard.read(group), count) for group, count in enumerate(shard.group_rows)]
    shard.close()
    return [row_of(table, at) for table, count in tables for at in range(count)]


def test_rows_come_back_as_they_were(tmp_path):
    rows = [row(i, with_soft=i % 2 == 0) for i in range(8)]
    rows[3] = rows[3]._replace(image=jpeg(pixels(3)[0]))
    path = f"{tmp_path}/a.parquet"
    entry = write_shard(LOCAL, path, iter(rows), num_classes=CLASSES, rows_per_group=3)
    assert all_rows(path) == rows
    assert verify(LOCAL, path, num_classes=CLASSES) == 8
    assert OpenShard(LOCAL, path).group_rows == (3, 3, 2)
    data = (tmp_path / "a.parquet").read_bytes()
    assert (entry.name, entry.rows, entry.bytes) == ("a.parquet", 8, len(data))
    assert entry.digest == hashlib.blake2b(data, digest_size=16).hexdigest()
    areas = [sum(int((pixels(i)[1] == c).sum()) for i in range(8)) for c in range(CLASSES)]
    assert list(entry.class_pixels) == areas
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_decoded_rows_are_the_pixels():
    made = row(7, with_soft=True)
    image, mask = pixels(7)
    decoded = decode(made, num_classes=CLASSES, soft=True)
    assert torch.equal(decoded["image"], torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(decoded["mask"], torch.from_numpy(mask))
    assert torch.equal(decoded["soft"], quantise_soft(probabilities(7)[None], top=2)[0])
    assert set(decode(made, num_classes=CLASSES)) == {"image", "mask"}


def test_plain_pyarrow_reads_the_files(tmp_path):
    files, root, _ = shards(tmp_path, [4])
    table = pq.read_table(f"{root}/part-000000.parquet", filesystem=files)
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata[VERSION_KEY] == b"1"
    assert table["id"].to_pylist() == ["i0", "i1", "i2", "i3"]
    assert table["uncertainty"].to_pylist() == [0, 0.125, 0.25, 0.375]
    footer = pq.read_metadata(f"{root}/part-000000.parquet")
    kinds = {footer.row_group(0).column(at).compression for at in range(footer.num_columns)}
    assert kinds == {"ZSTD"}


@pytest.mark.parametrize("what", [name for name in BAD_ROWS if "missing" not in name])
def test_a_bad_row_is_not_written_and_leaves_nothing(tmp_path, what):
    changes, message = BAD_ROWS[what]
    rows = [row(i) for i in range(5)] + [row(5, **changes)]
    with pytest.raises(ShardError, match=re.escape(message)) as caught:
        write_shard(LOCAL, f"{tmp_path}/a", rows, num_classes=CLASSES, rows_per_group=4)
    assert str(caught.value).startswith(f"{tmp_path}/a: row group 1, row 1 ('i5'): ")
    assert not list(tmp_path.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"old")
    with ShardWriter(LOCAL, str(path), num_classes=CLASSES, rows_per_group=2) as writer:
        for index in range(5):
            writer.write(row(index))
            assert path.read_bytes() == b"old"
    assert len(all_rows(path)) == 5

    def breaking():
        yield row(0)
        raise RuntimeError("teacher failed")

    with pytest.raises(RuntimeError, match="teacher failed"):
        write_shard(LOCAL, str(path), breaking(), num_classes=CLASSES)
    assert len(all_rows(path)) == 5
    assert [found.name for found in tmp_path.iterdir()] == ["a.parquet"]


SMALL = ShardsConfig(rows_per_group=64, rows_per_file=70)


def test_rows_are_split_over_files(tmp_path):
    root = f"{tmp_path}/deep/shards"
    rows = (row(i) for i in range(150))
    written = write_shards(LOCAL, root, rows, teacher=TEACHER, num_classes=CLASSES, config=SMALL)
    assert written == read_manifest(LOCAL, root)
    names = [f"part-{at:06d}.parquet" for at in range(3)]
    assert [(file.name, file.rows) for file in written.files] == list(
        zip(names, (70, 70, 10), strict=True)
    )
    assert OpenShard(LOCAL, f"{root}/{names[0]}").group_rows == (64, 6)
    back = [made.id for name in names for made in all_rows(f"{root}/{name}")]
    assert back == [f"i{i}" for i in range(150)]
    sizes = [(tmp_path / "deep/shards" / name).stat().st_size for name in names]
    assert (written.rows, written.bytes, written.num_classes) == (150, sum(sizes), CLASSES)
    assert sum(written.class_pixels) == 150 * 20
    assert written.teacher == TEACHER
    assert not list(tmp_path.rglob("*.tmp"))


def test_layout_settings_matter(tmp_path):
    def layout(name, config):
        root = f"{tmp_path}/{name}"
        rows = (row(i) for i in range(80))
        made = write_shards(LOCAL, root, rows, teacher="t", num_classes=CLASSES, config=config)
        return [OpenShard(LOCAL, f"{root}/{file.name}").group_rows for file in made.files]

    assert layout("a", SMALL) == [(64, 6), (10,)]
    assert layout("b", override(SMALL, {"rows_per_group": 65})) == [(65, 5), (10,)]
    assert layout("c", override(SMALL, {"rows_per_file": 64})) == [(64,), (16,)]
    assert layout("d", None) == [(80,)]


@pytest.mark.parametrize(
    "change", [{"rows_per_group": 63}, {"rows_per_group": 257}, {"rows_per_file": 0}]
)
def test_refuses_layouts(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        from_dict(ShardsConfig, change)


def test_works_through_any_file_system(tmp_path):
    files = pafs.SubTreeFileSystem(str(tmp_path), LOCAL)
    rows = [row(i) for i in range(3)]
    written = write_shards(files, "bucket/set", rows, teacher=TEACHER, num_classes=CLASSES)
    assert read_manifest(files, "bucket/set") == written
    assert all_rows("bucket/set/part-000000.parquet", files) == rows


def test_fingerprint_follows_content_order_and_teacher(tmp_path):
    def mark(name, indices, *, teacher=TEACHER, group=3, **changes):
        path = f"{tmp_path}/{name}"
        LOCAL.create_dir(path)
        entries = [
            write_shard(
                LOCAL,
                f"{path}/{at}",
                [row(i, **changes)],
                num_classes=CLASSES,
                rows_per_group=group,
            )
            for at, i in enumerate(indices)
        ]
        return write_manifest(LOCAL, path, entries, teacher=teacher).fingerprint

    base = mark("a", [0, 1])
    assert mark("b", [0, 1]) == base
    others = [mark("c", [1, 0]), mark("d", [0, 2]), mark("e", [0, 1], teacher="other")]
    others += [mark("f", [0, 1], mask=encode_png(pixels(9)[1])), mark("g", [0, 1], with_soft=True)]
    assert len({base, *others}) == 6


def test_the_manifest_is_written_last_and_an_old_one_goes_first(tmp_path):
    root = str(tmp_path)

    def breaking():
        yield row(0)
        raise RuntimeError("teacher failed")

    write_shards(LOCAL, root, [row(1)], teacher=TEACHER, num_classes=CLASSES)
    with pytest.raises(RuntimeError, match="teacher failed"):
        write_shards(LOCAL, root, breaking(), teacher=TEACHER, num_classes=CLASSES)
    with pytest.raises(ShardError, match=r"manifest.json: .*label again"):
        read_manifest(LOCAL, root)


def test_refuses_to_write_an_empty_or_mixed_set(tmp_path):
    with pytest.raises(ShardError, match="one or more files"):
        write_shards(LOCAL, str(tmp_path), [], teacher=TEACHER, num_classes=CLASSES)
    entries = [write_shard(LOCAL, f"{tmp_path}/{n}", [row(0)], num_classes=n) for n in (CLASSES, 4)]
    with pytest.raises(ShardError, match="all of the same classes"):
        write_manifest(LOCAL, str(tmp_path), entries, teacher=TEACHER)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(schema_version=2), "schema version 2, known is 1"),
        (lambda data: data.update(teacher="other"), "fingerprint is not that of the files"),
        (lambda data: data["files"].pop(), "fingerprint is not that of the files"),
        (lambda data: data.pop("files"), "files"),
        (lambda data: data.pop("schema_version"), "schema_version"),
        (lambda data: data["files"][0].update(rows=-1), "rows"),
    ],
)
def test_refuses_an_altered_manifest(tmp_path, edit, message):
    _, root, _ = shards(tmp_path, [2, 2])
    path = tmp_path / "manifest.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ShardError, match=message) as caught:
        read_manifest(LOCAL, root)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_refuses_a_manifest_that_is_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match=r"manifest.json: .*label again"):
        read_manifest(LOCAL, str(tmp_path))
