"""The order of a stream's rows: files of an epoch, lanes of a batch, windows of a lane."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysweep import rng
from raysweep.distill.rows import OpenShard, ShardRow, row_of


class Readable(Protocol):
    """What a lane needs of its stream.

    Attributes:
        seed: of all orders.
        columns: that are read.
    """

    seed: int
    columns: tuple[str, ...]

    @property
    def window(self) -> int:
        """Rows of a lane that are mixed at a time."""

    def __len__(self) -> int:
        """Return the rows of a lane."""

    def open(self, file: int) -> OpenShard:
        """Open a file by its number."""

    def name(self, file: int) -> str:
        """Return a file's name."""


class Located(NamedTuple):
    """A row and where it came from; ``at`` counts within its row group."""

    file: str
    group: int
    at: int
    row: ShardRow


class EpochPlan:
    """The order of the files of an epoch, from the manifest alone.

    Args:
        rows: number of rows of each file.
        seed: of the stream.
        epoch: counted from 0.
    """

    def __init__(self, rows: npt.NDArray[np.int64], *, seed: int, epoch: int) -> None:
        self.order = rng.numpy_generator(seed, "files", epoch).permutation(len(rows))
        self.ends = np.cumsum(rows[self.order])

    def locate(self, position: int) -> tuple[int, int]:
        """Return file and row within it of a position in the line of rows."""
        place = int(np.searchsorted(self.ends, position, side="right"))
        start = int(self.ends[place - 1]) if place else 0
        return int(self.order[place]), position - start


class Lane:
    """A stretch of an epoch's rows, read group by group and shuffled window by window.

    Args:
        stream: what it is part of.
        plan: order of the files.
        epoch: counted from 0.
        index: which lane of the global batch.
    """

    def __init__(self, stream: Readable, plan: EpochPlan, *, epoch: int, index: int) -> None:
        self.stream, self.plan, self.epoch, self.index = stream, plan, epoch, index
        self._window = self._file = self._group = -1
        self._rows: list[tuple[str, int, int, pa.Table]] = []
        self._shard: OpenShard | None = None
        self._table: pa.Table | None = None

    def row(self, step: int) -> Located:
        """Return the row that the lane gives to a batch of the epoch."""
        length, size = len(self.stream), self.stream.window
        window = step // size
        if window != self._window:
            first = window * size
            count = min(size, length - first)
            start = self.index * length + first
            rows = [self._read(start + at) for at in range(count)]
            names = ("rows", self.epoch, self.index, window)
            order = rng.numpy_generator(self.stream.seed, *names).permutation(count)
            self._window, self._rows = window, [rows[at] for at in order]
        name, group, at, table = self._rows[step % size]
        return Located(name, group, at, row_of(table, at))

    def _read(self, position: int) -> tuple[str, int, int, pa.Table]:
        file, at = self.plan.locate(position)
        if file != self._file or self._shard is None:
            self.close()
            self._shard, self._file = self.stream.open(file), file
        group = 0
        while at >= self._shard.group_rows[group]:
            at -= self._shard.group_rows[group]
            group += 1
        if group != self._group or self._table is None:
            self._table = self._shard.read(group, columns=self.stream.columns)
            self._group = group
        return self.stream.name(file), group, at, self._table

    def close(self) -> None:
        """Let go of the open file."""
        if self._shard is not None:
            self._shard.close()
        self._file, self._shard, self._group, self._table = -1, None, -1, None
