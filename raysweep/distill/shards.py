"""Pseudo-label shards: Parquet files of images and a teacher's masks, and their manifest.

A file appears under its name when it is whole, ``manifest.json`` when all files are. Columns are
plain Arrow types. Paths belong to a ``pyarrow.fs`` file system: a local one or an object store's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from types import TracebackType

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import Field

from raysweep.config import Config
from raysweep.distill.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardFile,
    read_manifest,
    write_manifest,
)
from raysweep.distill.rows import SCHEMA, ShardError, ShardRow, label_areas
from raysweep.distill.sink import HashedSink
from raysweep.distill.soft import decode_soft, encode_soft

__all__ = [
    "Manifest",
    "ShardError",
    "ShardFile",
    "ShardRow",
    "ShardWriter",
    "ShardsConfig",
    "decode_soft",
    "encode_soft",
    "read_manifest",
    "write_manifest",
    "write_shard",
    "write_shards",
]


class ShardsConfig(Config):
    """How shards are laid out on disk.

    Attributes:
        rows_per_group: rows of a row group, the least that is read at once.
        rows_per_file: rows of every file but the last.
    """

    rows_per_group: int = Field(default=128, ge=64, le=256)
    rows_per_file: int = Field(default=1024, ge=1)


class ShardWriter:
    """Writes one file; use as a context manager.

    A kill leaves no file of that name: rows go to ``<path>.tmp``, renamed when all are written.
    Every row is checked as it will be when it is read.

    Attributes:
        file: what goes into the manifest; set when the context ends.

    Args:
        files: the file system.
        path: of the file.
        num_classes: masks hold labels below this.
        rows_per_group: rows of every row group but the last.
    """

    file: ShardFile

    def __init__(
        self, files: pafs.FileSystem, path: str, *, num_classes: int, rows_per_group: int = 128
    ) -> None:
        self.files, self.path, self.rows_per_group = files, path, rows_per_group
        self._aside = f"{path}.tmp"
        self._areas = [0] * num_classes
        self._rows = 0
        self._pending: list[ShardRow] = []
        self._sink = HashedSink(files.open_output_stream(self._aside))
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            SCHEMA,
            compression="zstd",
            use_dictionary=["teacher"],
            write_page_checksum=True,
        )

    def write(self, row: ShardRow) -> None:
        """Append a row.

        Raises:
            ShardError: the row could not be read back: see :func:`raysweep.distill.rows.decode`.
        """
        group, at = divmod(self._rows, self.rows_per_group)
        try:
            areas = label_areas(row, num_classes=len(self._areas))
        except ValueError as error:
            place = f"row group {group}, row {at} ({row.id!r})"
            raise ShardError(f"{self.path}: {place}: {error}") from None
        self._areas = [old + new for old, new in zip(self._areas, areas, strict=True)]
        self._pending.append(row)
        self._rows += 1
        if len(self._pending) == self.rows_per_group:
            self._flush()

    def _flush(self) -> None:
        columns = {name: [getattr(row, name) for row in self._pending] for name in SCHEMA.names}
        table = pa.table(columns, schema=SCHEMA)
        self._writer.write_table(table, row_group_size=self.rows_per_group)
        self._pending = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._pending:
            self._flush()
        self._writer.close()
        self._sink.close()
        if kind is not None:
            self.files.delete_file(self._aside)
            return
        self.files.move(self._aside, self.path)
        self.file = ShardFile(
            name=self.path.rpartition("/")[2],
            rows=self._rows,
            bytes=self._sink.tell(),
            digest=self._sink.hexdigest(),
            class_pixels=tuple(self._areas),
        )


def write_shard(
    files: pafs.FileSystem,
    path: str,
    rows: Iterable[ShardRow],
    *,
    num_classes: int,
    rows_per_group: int = 128,
) -> ShardFile:
    """Write one file, replacing what has its name, and return its entry in the manifest.

    Raises:
        ShardError: a row could not be read back; nothing is left of the file.
    """
    with ShardWriter(files, path, num_classes=num_classes, rows_per_group=rows_per_group) as writer:
        for row in rows:
            writer.write(row)
    return writer.file


def write_shards(
    files: pafs.FileSystem,
    root: str,
    rows: Iterable[ShardRow],
    *,
    teacher: str,
    num_classes: int,
    config: ShardsConfig | None = None,
) -> Manifest:
    """Write rows to as many files as they need, then the manifest.

    Raises:
        ShardError: there are no rows, or one could not be read back.
    """
    config = config or ShardsConfig()
    files.create_dir(root, recursive=True)
    manifest = f"{root}/{MANIFEST_NAME}"
    if files.get_file_info(manifest).type != pafs.FileType.NotFound:
        files.delete_file(manifest)  # it does not describe the files that are about to be written
    shards: list[ShardFile] = []
    remaining = iter(rows)
    for first in remaining:
        part = itertools.chain([first], itertools.islice(remaining, config.rows_per_file - 1))
        path = f"{root}/part-{len(shards):06d}.parquet"
        shards.append(
            write_shard(
                files,
                path,
                part,
                num_classes=num_classes,
                rows_per_group=config.rows_per_group,
            )
        )
    return write_manifest(files, root, shards, teacher=teacher)
