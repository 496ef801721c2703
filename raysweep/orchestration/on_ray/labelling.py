"""Pseudo-labels by many teachers at once: images are read, labelled and written side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from raysweep.config import from_dict, to_dict
from raysweep.distill.labelling import LabelConfig, Unit
from raysweep.distill.production import Production
from raysweep.distill.rows import ShardRow
from raysweep.experiment import DataConfig
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.labelling import Read, TeacherPass, read_unit
from raysweep.orchestration.compute.worker import Progress, Report
from raysweep.orchestration.on_ray.parallel import Step, pipeline
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.on_ray.train import has_gpus_for
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage


@dataclass
class Throughput:
    """How a teacher pass went.

    Attributes:
        images: labelled by this call.
        later: images after the first unit.
        seconds: from the first result to the last.
        busy: seconds that the teachers computed, added up.
        waited: seconds between two units that they did not.
    """

    images: int = 0
    later: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    waited: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second once the first unit was there; 0 if there was but one."""
        return self.later / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float:
        """Part of their time that the teachers waited for images, in [0, 1]."""
        return self.waited / max(self.busy + self.waited, 1e-9)


class _Done(NamedTuple):
    unit: Unit
    rows: list[ShardRow]
    busy: float
    waited: float


def label_on_ray(
    production: Production,
    data: DataConfig,
    *,
    teacher: str,
    storage: Storage,
    workers: int,
    report: Report,
    after_shard: Callable[[], None],
) -> Throughput:
    """Label what is missing of a set of shards and write it.

    Every teacher has a GPU if there are any, else a core and one thread. This process writes, in
    order, so that a file is finished before the next is begun.

    Args:
        production: the shards.
        data: where the images are from; not read if they are generated.
        teacher: key of the fit stage.
        storage: where it is.
        workers: number of teachers.
        report: hears of the progress.
        after_shard: called after each finished file.

    Raises:
        ConfigError: an image cannot be read, or there are fewer cores or GPUs than workers.
    """
    gpus = has_gpus_for(workers)
    config, missing = production.config, production.missing()
    units = [unit for shard in missing for unit in production.units(shard)]
    labels = Step(
        _Teacher, (storage.uri, teacher, to_dict(config)), size=workers, cpus=1, gpus=int(gpus)
    )
    reads = Step(_read, (to_dict(data), storage.uri, config), size=workers)
    steps = [labels] if config.source == "generated" else [reads, labels]
    found, went = pipeline(units, steps), Throughput()
    for shard in missing:
        production.write(shard, _rows(found, production, shard, went, report))
        after_shard()
    return went


def _rows(
    found: Iterator[Any], production: Production, shard: int, went: Throughput, report: Report
) -> Iterator[ShardRow]:
    """Take a file's rows from the pipeline, keeping count."""
    since = time.monotonic()
    for unit in production.units(shard):
        done: _Done = next(found)
        assert done.unit == unit
        if went.images:  # the start of the processes is not part of the speed
            went.seconds += time.monotonic() - since
            went.later += unit.images
        since = time.monotonic()
        went.images += unit.images
        went.busy, went.waited = went.busy + done.busy, went.waited + done.waited
        yield from done.rows
        share = {"teacher waits": round(went.waiting_share, 3)}
        report(Progress("label", unit.first + unit.images, production.images, share))


def _read(
    data: dict[str, Any], storage: str, config: LabelConfig, unit: Unit
) -> tuple[Unit, Read | None]:
    """Decode the images of a unit; datasets stay open between units of one process."""
    dataset = opened(from_dict(DataConfig, data), storage)
    return unit, read_unit(dataset, unit, px=config.px)


class _Teacher:
    """A teacher in a process of its own."""

    def __init__(self, storage: str, key: str, config: dict[str, Any]) -> None:
        label = from_dict(LabelConfig, config)
        self.teacher = TeacherPass(
            StageStore(Storage(storage)), key, config=label, device=device_here()
        )
        self.idle_since: float | None = None

    def __call__(self, payload: Unit | tuple[Unit, Read]) -> _Done:
        began = time.monotonic()
        waited = 0.0 if self.idle_since is None else began - self.idle_since
        unit, read = (payload, None) if isinstance(payload, Unit) else payload
        rows = self.teacher.rows(unit, read)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.idle_since = time.monotonic()
        return _Done(unit, rows, self.idle_since - began, waited)
