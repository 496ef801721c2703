"""Ray Data as an ordered, bounded pipeline of units of work."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.data

from raysweep.distill.feed import Ahead

Block = dict[str, Any]
LEG_UNITS = 2048


class Step(NamedTuple):
    """One step of a pipeline.

    Attributes:
        work: maps a unit's payload to the next one; a class is built once per process.
        arguments: of the class's constructor, or bound to the function before the payload.
        size: processes at a time.
        cpus: reserved per process; 0 runs beside workers that hold all cores.
        gpus: reserved per process.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    size: int = 1
    cpus: float = 0
    gpus: float = 0


def pipeline(
    units: Iterable[Any], steps: Sequence[Step], *, leg: int = LEG_UNITS, overlap: int = 0
) -> Iterator[Any]:
    """Pass units through steps in other processes; yield what comes out, in the units' order.

    What is under way is bounded by Ray Data's backpressure. An exception that a step raises is
    raised here, as it was.

    Args:
        units: anything that pickles; each is computed on its own.
        steps: one after the other.
        leg: units of one execution of Ray Data; the next ones are not looked at before.
        overlap: an execution takes seconds to start; the next one does so when this many units of
            the present one are left.
    """
    remaining = iter(units)
    legs = [_Leg(remaining, steps, leg)]
    try:
        while legs[0].left:
            for result in legs[0].results:
                legs[0].left -= 1
                if len(legs) == 1 and legs[0].left <= overlap:
                    legs.append(_Leg(remaining, steps, leg))
                if isinstance(result, _Failure):
                    raise result.error
                yield result
            legs.pop(0).results.close()
    finally:
        for running in legs:
            running.results.close()


class _Leg:
    """One execution of Ray Data, started at once in a thread."""

    def __init__(self, remaining: Iterator[Any], steps: Sequence[Step], size: int) -> None:
        units = list(itertools.islice(remaining, size))
        self.left = len(units)
        self.results: Ahead[Any] = Ahead(_results(units, steps), depth=1)


def _results(units: list[Any], steps: Sequence[Step]) -> Iterator[Any]:
    if not units:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    packed = [{"unit": at, "payload": _packed(unit)} for at, unit in enumerate(units)]
    dataset: ray.data.Dataset = ray.data.from_items(packed, override_num_blocks=len(packed))
    for step in steps:
        options: dict[str, Any] = {"num_gpus": step.gpus} if step.gpus else {}
        if isinstance(step.work, type):
            options["fn_constructor_args"] = (step.work, step.arguments)
            options["compute"] = ray.data.ActorPoolStrategy(size=step.size)
            dataset = dataset.map_batches(_Held, batch_size=1, num_cpus=step.cpus, **options)
        else:
            options["fn_args"] = (step.work, step.arguments)
            options["compute"] = ray.data.TaskPoolStrategy(size=step.size)
            function: Any = _apply
            dataset = dataset.map_batches(function, batch_size=1, num_cpus=step.cpus, **options)
    for at, batch in enumerate(dataset.iter_batches(batch_size=1, prefetch_batches=1)):
        if int(batch["unit"][0]) != at:
            raise RuntimeError(f"unit {int(batch['unit'][0])} came in place of unit {at}")
        yield pickle.loads(batch["payload"][0])


class _Failure(NamedTuple):
    """What a step raised; a pipeline's own exception would lose its type on the way."""

    error: Exception


class _Held:
    """A step that keeps something between units, e.g. a model."""

    def __init__(self, work: type, arguments: tuple[Any, ...]) -> None:
        self.work = work(*arguments)

    def __call__(self, batch: Block) -> Block:
        return _passed(batch, self.work)


def _apply(batch: Block, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Block:
    return _passed(batch, lambda payload: work(*arguments, payload))


def _passed(batch: Block, work: Callable[[Any], Any]) -> Block:
    payload = pickle.loads(batch["payload"][0])
    if not isinstance(payload, _Failure):
        try:
            payload = work(payload)
        except Exception as error:  # raised again by the reader of the pipeline
            payload = _Failure(error)
    return {"unit": batch["unit"], "payload": _packed_column(payload)}


def _packed(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _packed_column(value: Any) -> Any:
    column = np.empty(1, dtype=object)
    column[0] = _packed(value)
    return column
