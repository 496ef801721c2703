"""Shards through Ray Data into a worker: decoded in parallel, in the order of the plain reader.

Ray Data's own shuffles and splits promise no order, so the order is that of ``ShardStream``: what
is handed out are stretches of it, and what comes back is laid side by side. A stretch reads the row
groups that it touches, so it spans some steps; executions overlap, so no epoch begins with a wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from raysweep.distill.stream import BadRow, ShardStream
from raysweep.learner import Batch
from raysweep.orchestration.on_ray.parallel import Step, pipeline

STEPS = 32
"""Steps of a stretch: a quarter of the usual row group, which it reads whole."""
LANES = 4
OVERLAP = 16
"""Stretches, of 128 rows, that are left when the next execution is started."""


class _Unit(NamedTuple):
    epoch: int
    steps: range
    lanes: range


class _Part(NamedTuple):
    """A stretch as it travels: arrays, which pickle without a copy, in place of tensors."""

    batches: dict[str, npt.NDArray[np.uint8]]
    bad_rows: list[tuple[int, int, BadRow]]


class ParallelReader:
    """Reads a stream's batches with decoders in other processes.

    Args:
        stream: the order, and this worker's part of it.
        decoders: number of processes.
    """

    def __init__(self, stream: ShardStream, *, decoders: int) -> None:
        self.stream, self.decoders = stream, decoders

    def __call__(self, start: int, end: int) -> Iterator[Batch]:
        """Yield the batches of the steps from ``start`` to before ``end``.

        Raises:
            ShardError: names file, row group and row.
        """
        own = self.stream.batch // self.stream.workers
        lanes = range(self.stream.rank * own, (self.stream.rank + 1) * own)
        groups = [lanes[at : at + LANES] for at in range(0, own, LANES)]
        units = (
            _Unit(epoch, steps, group)
            for epoch, steps in self._stretches(start, end)
            for group in groups
        )
        decode = Step(_Decoder, (self.stream,), size=self.decoders)
        found = pipeline(units, [decode], overlap=OVERLAP)
        for _, steps in self._stretches(start, end):
            parts: list[_Part] = [next(found) for _ in groups]
            yield from self._joined(parts, steps)

    def _stretches(self, start: int, end: int) -> Iterator[tuple[int, range]]:
        """Cut steps into stretches that stay within an epoch."""
        step = start
        while step < end:
            epoch, at = divmod(step, len(self.stream))
            count = min(STEPS, len(self.stream) - at, end - step)
            yield epoch, range(at, at + count)
            step += count

    def _joined(self, parts: list[_Part], steps: range) -> Iterator[Batch]:
        bad = sorted((row for part in parts for row in part.bad_rows), key=lambda row: row[:2])
        for at, step in enumerate(steps):
            while bad and bad[0][0] == step:
                self.stream.skipped(bad.pop(0)[2])
            yield {
                name: torch.from_numpy(np.concatenate([part.batches[name][at] for part in parts]))
                for name in parts[0].batches
            }


class _Decoder:
    """Reads and decodes stretches in a process of its own."""

    def __init__(self, stream: ShardStream) -> None:
        torch.set_num_threads(1)
        self.stream = stream

    def __call__(self, unit: _Unit) -> _Part:
        found = self.stream.stretch(unit.epoch, unit.steps, unit.lanes)
        return _Part(
            {name: np.ascontiguousarray(tensor) for name, tensor in found.batches.items()},
            found.bad_rows,
        )
