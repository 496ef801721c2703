"""Which images train, validate and test: from ``splits.csv``, or seeded."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.data.records import SPLITS, Record, Split, counts_of

COLUMNS = ("name", "split", "train_rank")
SPLIT_OF: dict[str, Split] = {split: split for split in SPLITS}
HELD_OUT = 0.2  # share of the labelled images that validates, and again that tests


def seeded_splits(
    images: Sequence[str], *, labelled: Collection[str], where: Path
) -> tuple[Record, ...]:
    """Split the labelled images: a fifth validates, a fifth tests, the rest trains.

    Each part has at least one image. The order is a seeded permutation that depends on the names
    alone.

    Args:
        images: names of all images.
        labelled: those with a mask.
        where: named in errors.

    Returns:
        One record per image, in the given order, without ranks.

    Raises:
        ConfigError: there are fewer than 3 labelled images.
    """
    if len(labelled) < len(SPLITS) - 1:
        raise ConfigError(
            f"{where} has {len(labelled)} labelled images; at least 3 are needed, to train, to "
            "validate and to test"
        )
    order = sorted(labelled, key=lambda name: rng.derive(0, "split", name))
    share = max(1, round(HELD_OUT * len(order)))
    splits: dict[str, Split] = dict.fromkeys(order, "train")
    splits |= dict.fromkeys(order[:share], "val")
    splits |= dict.fromkeys(order[share : 2 * share], "test")
    return tuple(Record(name, splits.get(name, "unlabelled")) for name in images)


def read_splits(
    path: Path, *, images: Sequence[str], labelled: Collection[str]
) -> tuple[Record, ...]:
    """Read ``splits.csv``: columns name (without suffix), split and, if known, train_rank.

    Images that it does not list and that have no mask are unlabelled; ``unlabelled`` in the table
    sets a labelled image aside.

    Args:
        path: the table.
        images: names of all images.
        labelled: those with a mask.

    Returns:
        One record per image, in the given order.

    Raises:
        ConfigError: a row cannot be used, a labelled image is missing, or a split stays empty.
    """
    known, masked = set(images), set(labelled)
    listed: dict[str, Record] = {}
    for where, row in _rows(path):
        record = _record(row, where=where)
        _check_record(record, images=known, labelled=masked, where=where)
        if record.id in listed:
            raise ConfigError(f"{where}: {record.id!r} is listed twice; keep one row")
        listed[record.id] = record
    for name in labelled:
        if name not in listed:
            raise ConfigError(
                f"{path} does not list {name!r}, which has a mask; add it (split unlabelled sets "
                "it aside) or delete the file for a seeded split"
            )
    records = tuple(listed.get(name, Record(name, "unlabelled")) for name in images)
    _check_complete(records, where=path)
    return records


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return ``("splits.csv line 2", row)`` for every line."""
    # utf-8-sig: spreadsheets begin their tables with a byte order mark
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        reader = csv.DictReader(stream, restval="")
        missing = {"name", "split"} - set(reader.fieldnames or ())
        unknown = set(reader.fieldnames or ()) - set(COLUMNS)
        if missing or unknown:
            raise ConfigError(
                f"{path}: columns are {', '.join(reader.fieldnames or ()) or 'none'}; expected "
                f"{', '.join(COLUMNS)} (the last is optional)"
            )
        return [(f"{path} line {reader.line_num}", row) for row in reader]


def _record(row: dict[str, str], *, where: str) -> Record:
    name, text, rank = (row.get(column, "").strip() for column in COLUMNS)
    split = SPLIT_OF.get(text)
    if split is None:
        raise ConfigError(f"{where}: split {text!r}; allowed are {', '.join(SPLITS)}")
    if rank and (split != "train" or not rank.isdecimal()):
        raise ConfigError(
            f"{where}: train_rank {rank!r}; give 0, 1, 2, ... to training images, else nothing"
        )
    return Record(name, split, int(rank) if rank else None)


def _check_record(
    record: Record, *, images: Collection[str], labelled: Collection[str], where: str
) -> None:
    if record.id not in images:
        raise ConfigError(
            f"{where}: no image is called {record.id!r}; names are file names without suffix"
        )
    if record.split != "unlabelled" and record.id not in labelled:
        raise ConfigError(
            f"{where}: {record.id!r} has no mask, so it cannot be of split {record.split}; add "
            f"masks/{record.id}.png or use split unlabelled"
        )


def _check_complete(records: Sequence[Record], *, where: Path) -> None:
    ranks = [record.rank for record in records if record.rank is not None]
    if len(set(ranks)) < len(ranks):
        twice = next(rank for rank in ranks if ranks.count(rank) > 1)
        raise ConfigError(f"{where}: train_rank {twice} is given twice; ranks order the images")
    for split, count in counts_of(records).items():
        if not count and split != "unlabelled":
            raise ConfigError(f"{where}: no image is of split {split}; give it at least one")
