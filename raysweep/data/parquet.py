"""The Parquet layout: ``dataset.json`` beside files of encoded images and masks.

Columns are plain Arrow types, readable by pyarrow alone. Pages carry checksums, so a damaged file
is an error and never a wrong picture.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.data.records import (
    SPLITS,
    Column,
    DatasetInfo,
    Record,
    Source,
    Split,
    check_unique,
    counts_of,
)

INFO_NAME = "dataset.json"
ROWS_PER_GROUP = 128  # the least that is read at once
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("mask", pa.binary()),
    ]
)


class ShardWriter:
    """Writes one file; use as a context manager.

    A kill leaves no file of that name: rows go to ``<path>.tmp``, renamed when all are written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._aside = path.with_name(f"{path.name}.tmp")
        self._writer = pq.ParquetWriter(
            self._aside, SCHEMA, compression="zstd", write_page_checksum=True
        )

    def write(
        self, records: Sequence[Record], *, images: Sequence[bytes], masks: Sequence[bytes | None]
    ) -> None:
        """Append a row group; at most ``ROWS_PER_GROUP`` rows keep reading light."""
        columns = {
            "id": [record.id for record in records],
            "split": [record.split for record in records],
            "rank": [record.rank for record in records],
            "image": list(images),
            "mask": list(masks),
        }
        self._writer.write_table(pa.table(columns, schema=SCHEMA))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            self._aside.replace(self.path)


def write_info(info: DatasetInfo, directory: Path) -> None:
    """Write ``dataset.json``, which makes a directory of files a dataset."""
    (directory / INFO_NAME).write_text(json.dumps(to_dict(info), indent=1) + "\n")


def is_parquet(source: str) -> bool:
    """Return whether ``dataset.json`` is there; ``source`` is a path or a URI of ``pyarrow.fs``."""
    files, root = _filesystem(source)
    found = files.get_file_info(f"{root}/{INFO_NAME}")
    return bool(found.type == pafs.FileType.File)


def read_parquet(source: str) -> Source:
    """Open a directory of Parquet files after checking the footer of each.

    Args:
        source: a path or a URI of ``pyarrow.fs`` (``s3://bucket/parts``).

    Raises:
        ConfigError: a file is empty, damaged, lacks a column or is missing; names the file. Damage
            inside a file is found when its pictures are read.
    """
    files, root = _filesystem(source)
    info = _read_info(files, f"{root}/{INFO_NAME}")
    listed = files.get_file_info(pafs.FileSelector(root))
    paths = sorted(found.path for found in listed if found.path.endswith(".parquet"))
    groups = [group for path in paths for group in _groups(files, path)]
    records = tuple(record for group in groups for record in group.records)
    check_unique((record.id for record in records), where=source)
    counts = counts_of(records)
    if counts != info.counts:
        raise ConfigError(
            f"{source}: {len(paths)} files hold {_spelt(counts)}; {INFO_NAME} says "
            f"{_spelt(info.counts)}; a file is missing or foreign, import the dataset again"
        )
    return Source(info, records, lambda column, ids: _read(groups, column, set(ids)))


@dataclass(frozen=True)
class _Group:
    """One row group of one file, its records read, its pictures not."""

    files: pafs.FileSystem
    path: str
    index: int
    records: tuple[Record, ...]


def _groups(files: pafs.FileSystem, path: str) -> list[_Group]:
    with _opened(files, path) as file:
        _check_schema(file.schema_arrow, path)
        tables = [
            file.read_row_group(index, columns=["id", "split", "rank"]).to_pylist()
            for index in range(file.num_row_groups)
        ]
    for row in itertools.chain(*tables):
        if row["split"] not in SPLITS:
            raise ConfigError(
                f"{path}: split {row['split']!r} of {row['id']!r}; allowed are {', '.join(SPLITS)}"
            )
    return [
        _Group(files, path, index, tuple(Record(**row) for row in rows))
        for index, rows in enumerate(tables)
    ]


def _read(
    groups: Sequence[_Group], column: Column, wanted: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    for group in groups:
        rows = [at for at, record in enumerate(group.records) if record.id in wanted]
        if not rows:
            continue
        with _opened(group.files, group.path) as file:
            values = file.read_row_group(group.index, columns=[column])[column]
        for at in rows:
            name, value = group.records[at].id, values[at].as_py()
            if value is None:
                raise ConfigError(f"{group.path}: {name!r} has no {column}; import it again")
            yield name, value


def _check_schema(schema: pa.Schema, path: str) -> None:
    for field in SCHEMA:
        found = schema.field(field.name).type if field.name in schema.names else "missing"
        if found != field.type:
            raise ConfigError(
                f"{path}: column {field.name} is {found}, must be {field.type}; columns are "
                f"{', '.join(f'{known.name} {known.type}' for known in SCHEMA)}"
            )


def _read_info(files: pafs.FileSystem, path: str) -> DatasetInfo:
    try:
        with files.open_input_file(path) as stream:
            return from_dict(DatasetInfo, json.loads(stream.read()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; import the dataset again") from None


def _filesystem(source: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in source:
        return pafs.LocalFileSystem(), str(Path(source).expanduser())
    try:
        files, root = pafs.FileSystem.from_uri(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source!r} cannot be opened: {error}") from None
    return files, root.rstrip("/")


@contextmanager
def _opened(files: pafs.FileSystem, path: str) -> Iterator[pq.ParquetFile]:
    """Open a file for reading; errors of Arrow become messages that name it."""
    try:
        with (
            files.open_input_file(path) as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as file,
        ):
            yield file
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"{path}: damaged Parquet file ({error}); copy or import the dataset again"
        ) from None


def _spelt(counts: Mapping[Split, int]) -> str:
    return ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS)
