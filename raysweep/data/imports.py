"""Convert folders to Parquet datasets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raysweep.config import ConfigError
from raysweep.data.decoding import IMAGE_SUFFIXES, image_size
from raysweep.data.folder import read_folder
from raysweep.data.parquet import ROWS_PER_GROUP, ShardWriter, write_info
from raysweep.data.records import (
    SPLITS,
    Column,
    DatasetInfo,
    Record,
    Source,
    content_hash,
    counts_of,
    fingerprint,
)

ROWS_PER_FILE = 8 * ROWS_PER_GROUP

Report = Callable[[int, int], None]  # images done, images in total


def import_folder(source: Path, target: Path, *, report: Report) -> DatasetInfo:
    """Convert the folder layout; files are stored as they are, so the fingerprint stays.

    Args:
        source: folder with ``images/``, ``masks/`` and ``classes.json``.
        target: directory to make.
        report: called as the conversion goes on.

    Raises:
        ConfigError: the source cannot be used, or the target is there and not empty.
    """
    with _made_aside(target) as directory:
        return _convert(read_folder(source), directory, report=report)


def import_images(source: Path, target: Path, *, report: Report) -> DatasetInfo:
    """Convert a folder of images, with its subfolders, to a dataset without labels.

    Args:
        source: folder of images; an image's id is its path below it, without suffix.
        target: directory to make.
        report: called as the conversion goes on.

    Raises:
        ConfigError: there is no image, one cannot be read, or the target is there and not empty.
    """
    with _made_aside(target) as directory:
        return _convert(_images_source(source), directory, report=report)


def _images_source(folder: Path) -> Source:
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in paths:
            raise ConfigError(f"{path}: {paths[name].name} has the same name; rename one")
        paths[name] = path
    if not paths:
        raise ConfigError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    records = tuple(Record(name, "unlabelled") for name in paths)
    hashes = [_checked_hash(record, paths[record.id]) for record in records]
    info = DatasetInfo(
        name=folder.resolve().name,
        classes=(),
        palette=(),
        licence="unknown",
        fingerprint=fingerprint(hashes, classes=(), flip_pairs=()),
        counts=counts_of(records),
    )

    def read(_column: Column, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        return ((name, paths[name].read_bytes()) for name in ids)

    return Source(info, records, read)


def _checked_hash(record: Record, path: Path) -> str:
    image = path.read_bytes()
    image_size(image, where=path)
    return content_hash(record, image=image, mask=None)


def _convert(source: Source, directory: Path, *, report: Report) -> DatasetInfo:
    hashes: list[str] = []
    for split in SPLITS:
        records = sorted((r for r in source.records if r.split == split), key=lambda r: r.id)
        for start in range(0, len(records), ROWS_PER_FILE):
            rows = records[start : start + ROWS_PER_FILE]
            with ShardWriter(directory / f"{split}-{start:06d}.parquet") as shard:
                for first in range(0, len(rows), ROWS_PER_GROUP):
                    group = rows[first : first + ROWS_PER_GROUP]
                    hashes += _write_group(source, group, shard)
                    report(len(hashes), len(source.records))
    info = source.info
    if fingerprint(hashes, classes=info.classes, flip_pairs=info.flip_pairs) != info.fingerprint:
        raise ConfigError(f"the files of {info.name} changed while they were read; import again")
    write_info(info, directory)
    return info


def _write_group(source: Source, records: Sequence[Record], shard: ShardWriter) -> list[str]:
    """Write one row group of one split; return the content hash of each row."""
    ids = [record.id for record in records]
    images = dict(source.read("image", ids))
    masks = {} if records[0].split == "unlabelled" else dict(source.read("mask", ids))
    shard.write(
        records,
        images=[images[name] for name in ids],
        masks=[masks.get(name) for name in ids],
    )
    return [
        content_hash(record, image=images[record.id], mask=masks.get(record.id))
        for record in records
    ]


@contextmanager
def _made_aside(target: Path) -> Iterator[Path]:
    """Yield a directory that becomes ``target`` if the block succeeds, and vanishes if not."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not empty; choose another or remove it")
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.rename(target)  # an empty directory of that name is replaced
    finally:
        shutil.rmtree(aside, ignore_errors=True)
