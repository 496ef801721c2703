"""Shards to batches with pyarrow alone: every worker its share, every row once, resumable exactly.

The rows of an epoch stand in a line, file after file in an order drawn from seed and epoch. The
line is cut into as many equal lanes as a global batch has images; the batch takes one row of every
lane, and a worker reads its own lanes only. A lane is shuffled window by window. So every order is
a function of seed, epoch and position: it depends neither on the number of workers nor on what was
read before, and continuing means jumping to a position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow.fs as pafs
import torch

from raysweep.config import ConfigError, digest
from raysweep.distill.lanes import EpochPlan, Lane, Located
from raysweep.distill.manifest import Manifest
from raysweep.distill.rows import SCHEMA, OpenShard, ShardError, ShardRow, decode
from raysweep.learner import Batch

Decode = Callable[[ShardRow], Mapping[str, torch.Tensor]]


class BadRow(NamedTuple):
    """A row that was skipped."""

    file: str
    group: int
    at: int
    id: str
    reason: str


class Stretch(NamedTuple):
    """Some lanes' part of consecutive batches; see :meth:`ShardStream.stretch`.

    Attributes:
        batches: what ``decode`` makes of the rows, ``(steps, lanes, ...)`` each.
        bad_rows: rows that were skipped, with the step of the epoch and the lane that met them.
    """

    batches: Batch
    bad_rows: list[tuple[int, int, BadRow]]


class ShardStream:
    """Batches of pseudo-labelled images for one worker; an iteration is what is left of an epoch.

    Per epoch the last ``rows % batch`` rows of the line are dropped (others every epoch), so all
    workers get the same number of batches. A worker holds ``batch / workers`` row groups, encoded.

    Files that cannot be read stop the stream. A row that cannot be decoded does too, unless
    ``max_bad_rows`` allows for it: then the next good row of its lane takes its place, whatever
    the number of workers. Each worker counts the different bad rows that it meets.

    Attributes:
        epoch: the epoch of the next batch.
        rows: rows of that epoch that all workers together have consumed.

    Args:
        manifest: of the shards.
        files: their file system.
        root: their directory.
        seed: of all orders.
        batch: images of a batch, over all workers.
        rank: this worker.
        workers: number of workers; divides ``batch``.
        shuffle_buffer: rows that all workers together mix at a time, encoded; 0 keeps the order
            within lanes.
        max_bad_rows: bad rows that are skipped before the stream stops.
        soft: whether soft labels are read.
        decode: makes tensors of a row, equally shaped in all rows; raises ``ValueError`` for a bad
            row. :func:`raysweep.distill.rows.decode` if left out.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        files: pafs.FileSystem,
        root: str,
        seed: int,
        batch: int,
        rank: int = 0,
        workers: int = 1,
        shuffle_buffer: int = 0,
        max_bad_rows: int = 0,
        soft: bool = False,
        decode: Decode | None = None,
    ) -> None:
        self.manifest, self.files, self.root = manifest, files, root
        self.seed, self.batch, self.rank, self.workers = seed, batch, rank, workers
        self.shuffle_buffer, self.max_bad_rows = shuffle_buffer, max_bad_rows
        self.columns = tuple(name for name in SCHEMA.names if soft or name != "soft")
        self.decode = decode or _decoder(manifest, soft=soft)
        self._file_rows = np.array([file.rows for file in manifest.files], dtype=np.int64)
        self._total = int(self._file_rows.sum())
        self._check()
        self.epoch, self.rows = 0, 0
        self._bad: dict[tuple[str, int, int], BadRow] = {}

    def _check(self) -> None:
        if not 1 <= self.batch <= self._total:
            raise ConfigError(
                f"batch = {self.batch}: from 1 to the {self._total} rows of the shards"
            )
        if self.workers < 1 or self.batch % self.workers or not 0 <= self.rank < self.workers:
            raise ConfigError(
                f"rank = {self.rank}, workers = {self.workers}, batch = {self.batch}: the number "
                "of workers must divide the batch, and ranks count from 0 to workers - 1"
            )
        for name in ("shuffle_buffer", "max_bad_rows"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: 0 or more is allowed")

    @property
    def bad_rows(self) -> tuple[BadRow, ...]:
        """Rows that were skipped, in the order in which they were met."""
        return tuple(self._bad.values())

    @property
    def window(self) -> int:
        """Rows of a lane that are mixed at a time."""
        return max(1, self.shuffle_buffer // self.batch)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._total // self.batch

    def plan(self, epoch: int) -> EpochPlan:
        """Return the order of the files of an epoch."""
        return EpochPlan(self._file_rows, seed=self.seed, epoch=epoch)

    def name(self, file: int) -> str:
        """Return the name of a file of the manifest."""
        return self.manifest.files[file].name

    def open(self, file: int) -> OpenShard:
        """Open a file of the manifest.

        Raises:
            ShardError: it cannot be used.
        """
        entry = self.manifest.files[file]
        path = f"{self.root}/{entry.name}"
        return OpenShard(self.files, path, size=entry.bytes, rows=entry.rows)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches that are left of this epoch; the next iteration is the next epoch.

        Yields:
            What ``decode`` makes of each row, stacked: ``image`` ``(batch / workers, 3, height,
            width)`` uint8, ``mask`` ``(batch / workers, height, width)`` uint8, and where asked
            for ``soft`` ``(batch / workers, 2, kept, height, width)`` uint8.

        Raises:
            ShardError: names file, row group and row.
        """
        own = self.batch // self.workers
        plan, epoch = self.plan(self.epoch), self.epoch
        indices = range(self.rank * own, (self.rank + 1) * own)
        lanes = [Lane(self, plan, epoch=epoch, index=index) for index in indices]
        try:
            for step in range(self.rows // self.batch, len(self)):
                batch = self._stack([self._good(lane, step) for lane in lanes])
                last = step + 1 == len(self)
                self.epoch, self.rows = epoch + last, 0 if last else (step + 1) * self.batch
                yield batch
        finally:
            for lane in lanes:
                lane.close()

    def seek(self, step: int) -> None:
        """Go to a step, counted from epoch 0; takes effect on the next iteration."""
        self.epoch, self.rows = step // len(self), step % len(self) * self.batch

    def stretch(self, epoch: int, steps: range, lanes: range) -> Stretch:
        """Return some lanes' part of some batches, whatever was read before.

        Who reads in parallel hands out stretches; laid side by side they are what iterating yields.
        Every window that a stretch touches is read whole. Rows that were skipped are not counted
        here: whoever lays the stretches side by side passes them to :meth:`skipped`.

        Args:
            epoch: counted from 0.
            steps: of the epoch.
            lanes: of the global batch.

        Raises:
            ShardError: names the file, or a lane without a usable row.
        """
        apart, met, rows = copy.copy(self), list[tuple[int, int, BadRow]](), []
        apart._bad, apart.max_bad_rows = {}, self._total
        for index in lanes:
            lane = Lane(apart, self.plan(epoch), epoch=epoch, index=index)
            try:
                for step in steps:
                    before = len(apart.bad_rows)
                    rows.append(apart._good(lane, step))
                    met += [(step, index, bad) for bad in apart.bad_rows[before:]]
            finally:
                lane.close()
        shape = (len(lanes), len(steps))
        stacked = {name: t.unflatten(0, shape) for name, t in self._stack(rows).items()}
        return Stretch({name: t.transpose(0, 1) for name, t in stacked.items()}, met)

    def skipped(self, bad: BadRow) -> None:
        """Count a row that a stretch skipped.

        Raises:
            ShardError: it is one too many.
        """
        if bad[:3] not in self._bad:
            self._count(bad)

    def _good(self, lane: Lane, step: int) -> tuple[Located, Mapping[str, torch.Tensor]]:
        for ahead in range(len(self)):
            found = lane.row((step + ahead) % len(self))
            if found[:3] in self._bad:
                continue
            try:
                return found, self.decode(found.row)
            except ValueError as error:
                self._skip(found, str(error))
        raise ShardError(f"{self.root}: no usable row in lane {lane.index}; label again")

    def _skip(self, found: Located, reason: str) -> None:
        self._count(BadRow(*found[:3], found.row.id, reason))

    def _count(self, bad: BadRow) -> None:
        place = _place(self.root, bad)
        if self.max_bad_rows == 0:
            raise ShardError(f"{place}: {bad.reason}")
        if len(self._bad) == self.max_bad_rows:
            raise ShardError(
                f"{place}: {bad.reason}; {len(self._bad)} bad rows were skipped before, "
                f"max_bad_rows = {self.max_bad_rows}: label again or raise it"
            )
        self._bad[bad[:3]] = bad

    def _stack(self, rows: list[tuple[Located, Mapping[str, torch.Tensor]]]) -> Batch:
        shapes = {name: tensor.shape for name, tensor in rows[0][1].items()}
        for found, decoded in rows:
            for name, shape in shapes.items():
                if decoded[name].shape != shape:
                    bad = BadRow(*found[:3], found.row.id, "")
                    raise ShardError(
                        f"{_place(self.root, bad)}: {name} of shape "
                        f"{tuple(decoded[name].shape)}, others of the batch have {tuple(shape)}; "
                        "label at one size, or pass a decode that resizes"
                    )
        return {name: torch.stack([decoded[name] for _, decoded in rows]) for name in shapes}

    def _identity(self) -> str:
        return digest([self.manifest.fingerprint, self.seed, self.batch, self.window])

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that was yielded; the same on every worker.

        ``bad_rows`` are this worker's. Another number of workers may continue.
        """
        return {
            "stream": self._identity(),
            "epoch": self.epoch,
            "rows": self.rows,
            "bad_rows": [list(bad) for bad in self.bad_rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`; takes effect on the next iteration.

        Raises:
            ConfigError: the state belongs to other shards, seed, batch or shuffle buffer.
        """
        if state["stream"] != self._identity():
            raise ConfigError(
                "the saved position belongs to other shards, or to another seed, batch or "
                "shuffle_buffer; continue with those or start anew"
            )
        self.epoch, self.rows = state["epoch"], state["rows"]
        self._bad = {tuple(bad[:3]): BadRow(*bad) for bad in state["bad_rows"]}


def _decoder(manifest: Manifest, *, soft: bool) -> Decode:
    return partial(decode, num_classes=manifest.num_classes, soft=soft)


def _place(root: str, row: BadRow) -> str:
    return f"{root}/{row.file}: row group {row.group}, row {row.at} ({row.id!r})"
