"""A damaged shard is refused by file, row group, row and column."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysweep.distill.rows import SCHEMA, VERSION_KEY, OpenShard, verify
from raysweep.distill.shards import ShardError, write_shard
from tests.distill.pseudo import BAD_ROWS, CLASSES, LOCAL, row, shards, write_unchecked


def refusal(path):
    with pytest.raises(ShardError) as caught:
        verify(LOCAL, str(path), num_classes=CLASSES)
    return str(caught.value)


@pytest.mark.parametrize("what", BAD_ROWS)
def test_names_the_bad_row(tmp_path, what):
    changes, message = BAD_ROWS[what]
    rows = [row(i) for i in range(9)]
    rows[7] = row(7, **changes)
    write_unchecked(tmp_path / "a.parquet", rows, group=3)
    found = refusal(tmp_path / "a.parquet")
    assert found.startswith(f"{tmp_path}/a.parquet: row group 2, row 1 ('i7'): ")
    assert message in found


def test_names_empty_missing_and_truncated_files(tmp_path):
    shards(tmp_path, [4])
    path = tmp_path / "part-000000.parquet"
    data = path.read_bytes()
    for damaged in (data[:-9], data[: len(data) // 2], b"x" * 99):
        path.write_bytes(damaged)
        assert refusal(path).startswith(f"{path}: damaged Parquet file")
    path.write_bytes(b"")
    assert refusal(path).startswith(f"{path}: empty file (0 bytes)")
    path.unlink()
    assert refusal(path).startswith(f"{path}: missing")


def test_names_the_row_group_of_a_flipped_bit(tmp_path):
    rows = [row(i) for i in range(9)]
    write_shard(LOCAL, f"{tmp_path}/a", rows, num_classes=CLASSES, rows_per_group=3)
    footer = pq.read_metadata(tmp_path / "a")
    chunk = footer.row_group(1).column(SCHEMA.names.index("image"))
    data = bytearray((tmp_path / "a").read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 20] ^= 1
    (tmp_path / "a").write_bytes(data)
    assert refusal(tmp_path / "a").startswith(f"{tmp_path}/a: row group 1: damaged Parquet file")


@pytest.mark.parametrize("column", SCHEMA.names)
def test_names_a_missing_or_foreign_column(tmp_path, column):
    path = tmp_path / "a.parquet"
    write_unchecked(path, [row(0)], drop=[column])
    assert refusal(path).startswith(f"{path}: column {column} is missing, must be ")
    table = pq.read_table(path).append_column(column, pa.array([True]))
    pq.write_table(table, path)
    assert refusal(path).startswith(f"{path}: column {column} is bool, must be ")


@pytest.mark.parametrize(("metadata", "version"), [(None, "missing"), ({VERSION_KEY: b"2"}, "2")])
def test_names_another_schema_version(tmp_path, metadata, version):
    path = tmp_path / "a.parquet"
    write_unchecked(path, [row(0)], schema=SCHEMA.with_metadata(metadata))
    assert refusal(path) == f"{path}: schema version {version}, known is 1; label again"


def test_size_and_rows_must_be_those_of_the_manifest(tmp_path):
    _, root, manifest = shards(tmp_path, [4])
    path, entry = f"{root}/part-000000.parquet", manifest.files[0]
    OpenShard(LOCAL, path, size=entry.bytes, rows=entry.rows).close()
    with pytest.raises(ShardError, match=f"the manifest says {entry.bytes + 1}: truncated"):
        OpenShard(LOCAL, path, size=entry.bytes + 1)
    with pytest.raises(ShardError, match="4 rows, the manifest says 5"):
        OpenShard(LOCAL, path, rows=5)
