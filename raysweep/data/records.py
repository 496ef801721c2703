"""What every dataset consists of, wherever it is stored: named images, their split and rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field

from raysweep.config import Config, ConfigError, digest
from raysweep.data.merging import Colour

Split = Literal["unlabelled", "train", "val", "test"]
Column = Literal["image", "mask"]
Reader = Callable[[Column, Sequence[str]], Iterator[tuple[str, bytes]]]

SPLITS: tuple[Split, ...] = ("unlabelled", "train", "val", "test")
SCHEMA_VERSION = 1


class DatasetInfo(Config):
    """What is known of a dataset without decoding it; stored as ``dataset.json``.

    Attributes:
        name: what tables and runs call it.
        classes: names in index order; empty if no image is labelled.
        palette: one RGB colour of 0 to 255 per class.
        licence: of the images.
        fingerprint: changes with anything that can change a result; 16 hexadecimal digits.
        counts: images per split; every split is listed.
        flip_pairs: pairs of class indices that trade places when an image is mirrored.
        schema_version: of the files on disk.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    licence: str
    fingerprint: str
    counts: dict[Split, int]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)


@dataclass(frozen=True)
class Record:
    """One image's place in a dataset.

    Attributes:
        id: unique in the dataset.
        split: images of ``train``, ``val`` and ``test`` have a mask.
        rank: place in the dataset's own order of training images, if it has one.
    """

    id: str
    split: Split
    rank: int | None = None


class Source(NamedTuple):
    """A dataset as stored: ``read(column, ids)`` yields ``(id, encoded bytes)`` in any order."""

    info: DatasetInfo
    records: tuple[Record, ...]
    read: Reader


def counts_of(records: Iterable[Record]) -> dict[Split, int]:
    """Return the number of images of each split."""
    splits = [record.split for record in records]
    return {split: splits.count(split) for split in SPLITS}


def content_hash(record: Record, *, image: bytes, mask: bytes | None) -> str:
    """Return a hash of one image, its mask and its place, from the encoded bytes."""
    parts = [hashlib.blake2b(part).hexdigest() for part in (image, mask or b"")]
    return digest([record.id, record.split, record.rank, *parts], length=32)


def fingerprint(
    hashes: Iterable[str], *, classes: Sequence[str], flip_pairs: Sequence[tuple[int, int]]
) -> str:
    """Return the fingerprint of a dataset's content, whatever files it lies in.

    Args:
        hashes: :func:`content_hash` of every image, in any order.
        classes: names in index order.
        flip_pairs: as in :class:`DatasetInfo`; they change augmentation, so results.
    """
    return digest(
        {"classes": list(classes), "flip_pairs": list(flip_pairs), "images": sorted(hashes)}
    )


def check_unique(ids: Iterable[str], *, where: object) -> None:
    """Refuse ids that occur twice.

    Raises:
        ConfigError: names the first such id and ``where`` it was found.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise ConfigError(f"{where}: image {name!r} occurs twice; keep one of them")
        seen.add(name)
