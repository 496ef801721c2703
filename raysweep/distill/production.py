"""A set of shards in the making: file by file, so that a kill costs at most the file under way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import torch

from raysweep.config import ConfigError, digest, from_dict, to_dict
from raysweep.distill.labelling import LabelConfig, Unit, shard_count, units_of
from raysweep.distill.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardFile,
    read_manifest,
    write_manifest,
)
from raysweep.distill.rows import SCHEMA, OpenShard, ShardRow, row_of
from raysweep.distill.shards import write_shard
from raysweep.fewshot.ensemble import keep_certain

ORIGIN = "labelling.json"


@dataclass(frozen=True)
class Production:
    """Shards that are being made in a directory.

    A file that is finished has an entry beside it, which holds what the manifest will say of it.
    If some images are to be dropped, everything is labelled first, since the rule needs all
    uncertainties; then the rows that stay are copied.

    Attributes:
        files: the file system.
        root: the directory.
        config: what is wanted.
        images: number of images to label.
        teacher: key of the teacher.
        num_classes: number of classes, background included.
    """

    files: pafs.FileSystem
    root: str
    config: LabelConfig
    images: int
    teacher: str
    num_classes: int

    @property
    def shards(self) -> int:
        """Number of files before any image is dropped."""
        return shard_count(images=self.images, rows_per_file=self.config.shards.rows_per_file)

    def units(self, shard: int) -> list[Unit]:
        """Return the units of a file, in order."""
        return units_of(shard, images=self.images, rows_per_file=self.config.shards.rows_per_file)

    def begin(self, origin: str) -> None:
        """Make the directory; go on with what lies there if it was begun for the same labels.

        Args:
            origin: names the images, e.g. the fingerprint of their dataset.

        Raises:
            ConfigError: other labels lie there.
        """
        self.files.create_dir(self.root, recursive=True)
        mine = digest([self.config.relevant(), self.images, self.teacher, origin])
        found = self._read(ORIGIN)
        if found is None and self._exists(MANIFEST_NAME):
            raise ConfigError(f"{self.root} holds other shards; choose another directory")
        if found is not None and found != mine:
            raise ConfigError(
                f"{self.root} was begun with another teacher, other images or settings; choose "
                "another directory or remove it"
            )
        self._write(ORIGIN, mine)

    def missing(self) -> list[int]:
        """Return the files that are still to be labelled."""
        if self._exists(MANIFEST_NAME):
            return []
        return [shard for shard in range(self.shards) if not self._exists(self._entry(shard))]

    def write(self, shard: int, rows: Iterable[ShardRow]) -> None:
        """Write a labelled file."""
        entry = self._write_file(f"{self._prefix}-{shard:06d}.parquet", rows)
        self._write(self._entry(shard), to_dict(entry))

    def finish(self) -> Manifest:
        """Drop what is to be dropped, write the manifest, remove what only the making needed.

        Raises:
            ConfigError: no image would be left.
        """
        if not self._exists(MANIFEST_NAME):
            labelled = [
                from_dict(ShardFile, self._read(self._entry(shard))) for shard in range(self.shards)
            ]
            final = self._filtered(labelled) if self.config.portion else labelled
            write_manifest(self.files, self.root, final, teacher=self.teacher)
        for found in self.files.get_file_info(pafs.FileSelector(self.root)):
            name = found.base_name
            entry = name.startswith("shard-") and name.endswith(".json")
            if entry or name.startswith("labelled-") or name.endswith(".tmp"):
                self.files.delete_file(found.path)
        return read_manifest(self.files, self.root)

    @property
    def _prefix(self) -> str:
        return "labelled" if self.config.portion else "shard"

    def _entry(self, shard: int) -> str:
        return f"{self._prefix}-{shard:06d}.json"

    def _filtered(self, labelled: list[ShardFile]) -> list[ShardFile]:
        columns = ("uncertainty",)
        scores = torch.cat(
            [
                torch.tensor(table["uncertainty"].to_pylist())
                for table in self._tables(labelled, columns=columns)
            ]
        )
        try:
            kept = keep_certain(scores, self.config.portion, released=self.config.released)
        except ValueError as error:
            raise ConfigError(f"label.portion = {self.config.portion}: {error}") from None
        chosen = set(kept.tolist())
        every = (
            row_of(table, at)
            for table in self._tables(labelled, columns=SCHEMA.names)
            for at in range(table.num_rows)
        )
        rows = (row for at, row in enumerate(every) if at in chosen)
        size, final = self.config.shards.rows_per_file, []
        for shard in range(shard_count(images=len(chosen), rows_per_file=size)):
            part = itertools.islice(rows, size)
            final.append(self._write_file(f"shard-{shard:06d}.parquet", part))
        return final

    def _tables(self, labelled: list[ShardFile], *, columns: Sequence[str]) -> Iterator[pa.Table]:
        for file in labelled:
            shard = OpenShard(self.files, f"{self.root}/{file.name}", size=file.bytes)
            try:
                for group in range(len(shard.group_rows)):
                    yield shard.read(group, columns=columns)
            finally:
                shard.close()

    def _write_file(self, name: str, rows: Iterable[ShardRow]) -> ShardFile:
        return write_shard(
            self.files,
            f"{self.root}/{name}",
            rows,
            num_classes=self.num_classes,
            rows_per_group=self.config.shards.rows_per_group,
        )

    def _exists(self, name: str) -> bool:
        found = self.files.get_file_info(f"{self.root}/{name}")
        return bool(found.type == pafs.FileType.File)

    def _read(self, name: str) -> Any:
        if not self._exists(name):
            return None
        with self.files.open_input_stream(f"{self.root}/{name}") as stream:
            return json.loads(stream.read())

    def _write(self, name: str, value: object) -> None:
        path = f"{self.root}/{name}"
        with self.files.open_output_stream(f"{path}.tmp") as stream:
            stream.write(json.dumps(value).encode())
        self.files.move(f"{path}.tmp", path)
