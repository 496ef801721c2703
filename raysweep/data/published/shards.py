"""One file of an import: which images it holds, and writing it."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysweep.config import Config, ConfigError, from_dict, to_dict
from raysweep.data.decoding import PILLOW_ERRORS, encode_png
from raysweep.data.merging import LabelSet, Merge, merge
from raysweep.data.parquet import ShardWriter
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import Converted, ImportConfig, Item, Plan, Problem
from raysweep.data.published.kinds import open_source
from raysweep.data.published.workplace import ENTRY_SUFFIX
from raysweep.data.records import SPLITS, Split, content_hash

Counts = npt.NDArray[np.int64]


class Shard(NamedTuple):
    """A file that is to be written: ``length`` images of a split from ``start`` on."""

    split: Split
    start: int
    length: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.split}-{self.start:06d}.parquet"


class Entry(Config):
    """What a finished file holds; kept beside it until the import is done.

    Attributes:
        hashes: content hash of each image.
        pixels: number of pixels per class.
        problems: name and reason of what was skipped.
    """

    hashes: tuple[str, ...]
    pixels: tuple[int, ...]
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Work:
    """All that a process needs to know to write files of an import; pickles.

    Attributes:
        source: what is imported.
        directory: where files are written.
        config: settings.
        plan: what the source holds, without its items.
        items: images per split, in order of id.
        rule: merge to apply to labels.
        sizes: rows per row group and per file.
    """

    source: Path
    directory: Path
    config: ImportConfig
    plan: Plan
    items: dict[Split, tuple[Item, ...]]
    rule: Merge | None
    sizes: tuple[int, int]

    @property
    def shards(self) -> list[Shard]:
        """Files in the order of splits and ids."""
        size = self.sizes[1]
        return [
            Shard(split, start, min(size, len(self.items[split]) - start))
            for split in SPLITS
            for start in range(0, len(self.items[split]), size)
        ]

    @property
    def labels(self) -> LabelSet | None:
        """Classes of the masks that are stored."""
        return self.rule.target if self.rule else self.plan.labels

    def open(self) -> Tree:
        """Open the source."""
        return open_source(self.source, self.config, scratch=self.directory)


class _Row(NamedTuple):
    item: Item
    image: bytes
    mask: bytes | None
    content_hash: str
    pixels: Counts


def write_shard(
    work: Work, tree: Tree, shard: Shard, *, progress: Callable[[int], None], threads: int = 1
) -> None:
    """Write one file, a row group at a time.

    Args:
        work: the import.
        tree: its source.
        shard: which file.
        progress: called with the number of images of every row group.
        threads: labelled images converted at a time; zlib lets other threads run, while images
            that are only copied would wait for one another.

    Raises:
        ConfigError: an image cannot be used, and such images are not to be skipped.
    """
    pixels = np.zeros(len(work.labels.classes) if work.labels else 0, dtype=np.int64)
    hashes: list[str] = []
    problems: list[Problem] = []
    items = work.items[shard.split][shard.start : shard.start + shard.length]
    size, convert = work.sizes[0], functools.partial(_row, work, tree)
    with ThreadPoolExecutor(threads) as pool, ShardWriter(work.directory / shard.name) as writer:
        in_order = pool.map if work.plan.labels and threads > 1 else map
        for first in range(0, len(items), size):
            found = list(in_order(convert, items[first : first + size]))
            rows = [row for row in found if isinstance(row, _Row)]
            problems += [row for row in found if isinstance(row, Problem)]
            if rows:
                images, masks = [row.image for row in rows], [row.mask for row in rows]
                writer.write([row.item.record for row in rows], images=images, masks=masks)
            hashes += [row.content_hash for row in rows]
            pixels += sum(row.pixels for row in rows)
            progress(len(found))
    if not hashes:
        (work.directory / shard.name).unlink()
    named = tuple((problem.name, problem.reason) for problem in problems)
    entry = Entry(hashes=tuple(hashes), pixels=tuple(pixels.tolist()), problems=named)
    _write_entry(_entry_path(work.directory, shard), entry)


def read_entry(directory: Path, shard: Shard) -> Entry | None:
    """Return what a file holds; None if it is not finished."""
    place = _entry_path(directory, shard)
    if not place.exists():
        return None
    return from_dict(Entry, json.loads(place.read_text()))


def _write_entry(place: Path, entry: Entry) -> None:
    aside = place.with_name(f"{place.name}.tmp")
    aside.write_text(json.dumps(to_dict(entry)))
    aside.replace(place)


def _entry_path(directory: Path, shard: Shard) -> Path:
    return directory / (shard.name.removesuffix(".parquet") + ENTRY_SUFFIX)


def _row(work: Work, tree: Tree, item: Item) -> _Row | Problem:
    """Convert one image, or say what is wrong with it."""
    try:
        converted = work.plan.convert(tree, item)
        if work.config.verify == "decode":
            _decode(converted.image, where=tree.path(item.files[0]))
        mask, pixels = _mask(work, tree, item, converted)
    except ConfigError as error:
        if work.config.on_error == "stop":
            raise
        name, _, reason = str(error).partition(": ")
        return Problem(name, reason)
    found = content_hash(item.record, image=converted.image, mask=mask)
    return _Row(item, converted.image, mask, found, pixels)


def _mask(work: Work, tree: Tree, item: Item, converted: Converted) -> tuple[bytes | None, Counts]:
    """Return the mask as it is stored, and its pixels per class."""
    labels, source, target = converted.labels, work.plan.labels, work.labels
    if labels is None or source is None or target is None:
        return None, np.zeros(len(target.classes) if target else 0, dtype=np.int64)
    highest = int(labels.max())
    if highest >= len(source.classes):
        raise ConfigError(
            f"{tree.path(item.files[-1])}: label {highest} has no class; {source.name} has labels "
            f"0 to {len(source.classes) - 1}"
        )
    merged = merge(labels, work.rule) if work.rule else labels
    pixels = np.bincount(merged.reshape(-1), minlength=len(target.classes))
    return converted.mask if converted.mask is not None else encode_png(merged), pixels


def _decode(data: bytes, *, where: str) -> None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except PILLOW_ERRORS as error:
        raise ConfigError(f"{where}: unreadable or truncated ({error})") from None
