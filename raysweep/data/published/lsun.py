"""LSUN: one lmdb database per category; keys are hashes, values are WebP or JPEG files.

A seeded subset of 100,000 images unless ``take`` says otherwise, the size that GanOrCon pretrains
on (which images it drew is not published). The subset depends on the keys and the seed alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import ImportConfig, Item, Plan, convert_plain, optional
from raysweep.data.records import Record

SUBSET = 100_000
DATA_NAME = "data.mdb"


class Database(Tree):
    """The entries of a database as files named by their keys.

    Only the keys that were asked for are listed; a category has millions.
    """

    def __init__(self, root: Path, *, count: int, seed: int) -> None:
        self._environment = _environment(root)
        chosen = heapq.nsmallest(count, self._keys(), key=lambda k: rng.derive(seed, "take", k))
        super().__init__(root, chosen)

    def stamp(self, name: str) -> str:
        """Return nothing: a key is a hash of its value."""
        return ""

    def read(self, name: str) -> bytes:
        """Return the value of a key."""
        with self._environment.begin() as transaction:
            data = transaction.get(name.encode())
        if data is None:
            raise ConfigError(f"{self.path(name)}: the database has no such key")
        return bytes(data)

    def close(self) -> None:
        """Close the database."""
        self._environment.close()

    def _keys(self) -> Iterator[str]:
        with self._environment.begin() as transaction:
            for key in transaction.cursor().iternext(keys=True, values=False):
                yield bytes(key).decode("ascii", errors="backslashreplace")


def open_database(source: Path, config: ImportConfig) -> Database:
    """Open the folder that holds ``data.mdb``, at ``source`` or one level below it.

    Raises:
        ConfigError: it is an archive (lmdb maps its file into memory, so it must be unpacked), it
            is damaged, or the package that reads it is not installed.
    """
    if source.is_file() and source.name != DATA_NAME:
        raise ConfigError(
            f"{source}: an lmdb database cannot be read inside an archive; unpack it and give "
            f"the folder that holds {DATA_NAME}"
        )
    place = source.parent if source.is_file() else source
    found = [place] if (place / DATA_NAME).is_file() else sorted(place.glob(f"*/{DATA_NAME}"))
    if len(found) != 1:
        what = "no" if not found else "more than one"
        raise ConfigError(f"{source} holds {what} {DATA_NAME}; give the folder of one category")
    folder = found[0] if found[0].is_dir() else found[0].parent
    return Database(folder, count=config.take.get("unlabelled", SUBSET), seed=config.seed)


def plan(tree: Tree, config: ImportConfig) -> Plan:
    """Every listed key is an unlabelled image."""
    items = tuple(Item(Record(key, "unlabelled"), (key,)) for key in tree.names)
    name = f"lsun-{tree.where.resolve().name.removesuffix('_lmdb').removesuffix('_train')}"
    return Plan(name, None, "lsun", items, convert_plain)


def _environment(root: Path) -> Any:
    lmdb = optional("lmdb", reads="LSUN")
    try:
        return lmdb.open(str(root), readonly=True, lock=False, readahead=False, max_readers=1)
    except lmdb.Error as error:
        raise ConfigError(f"{root}: damaged or truncated database ({error})") from None
