"""The job behind ``jobs/pretrain_*.py``: one representation, tracked and stored."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from rich.console import Console

from raysweep.config import ConfigError
from raysweep.data.dataset import DatasetInfo
from raysweep.experiment import Experiment
from raysweep.orchestration import terminal
from raysweep.orchestration.cli import experiment_from
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import described
from raysweep.orchestration.compute.generative import check_images
from raysweep.orchestration.compute.learning import pretrain
from raysweep.orchestration.compute.worker import Progress, Run
from raysweep.orchestration.on_ray.elastic import (
    Workers,
    pretrain_counts,
    preview_counts,
    word_history,
)
from raysweep.orchestration.on_ray.render import materialise_in_parallel
from raysweep.orchestration.planning.devices import LONG_SECONDS, gpu_gib, hours_of, print_hours
from raysweep.orchestration.planning.estimate import disk_gib, work_of
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tracking.client import ui_command
from raysweep.orchestration.tracking.live_run import PretrainingRun


def run_pretraining(options: argparse.Namespace, *, methods: tuple[str, ...]) -> int:
    """Train one representation, or find it trained; return the exit code.

    Args:
        options: parsed flags of :func:`raysweep.orchestration.cli.parser`.
        methods: what ``pretrain.method`` may be, the default first.

    Raises:
        ConfigError: the input cannot be used; nothing has been started.
    """
    experiment = experiment_from(options, {"pretrain.method": methods[0]})
    storage = Storage(options.storage)
    info = _checked(experiment, methods, options.workers)
    store, stage = StageStore(storage), chain_of(experiment, info.fingerprint).pretrain
    console = terminal.console()
    if options.dry_run:
        _preview(console, experiment, stage, store)
        if options.workers.several:
            console.print(preview_counts(pretrain_counts(experiment.pretrain, options.workers)))
        return 0
    storage.check_writable()
    if store.done(stage):
        console.print("already trained")
    else:
        with terminal.quiet(storage.local("pretrain", f"{stage.key}.txt")) as screen:
            _train(experiment, stage, store, info=info, options=options, screen=screen)
    record = store.record(stage)
    metrics = dict(record["metrics"])
    counts = metrics.pop("worker_counts", [])
    metrics.pop("step", None)
    shown = [
        f"{k} {v:.4g}" if isinstance(v, float | int) else f"{k} {v}" for k, v in metrics.items()
    ]
    console.print(", ".join(shown))
    if len(counts) > 1:
        console.print(word_history(counts))
    console.print(
        f"trained in {terminal.clock(record['cost']['seconds'])} on {record['cost']['device']}"
    )
    console.print(f"stage: {store.directory(stage)}", soft_wrap=True)
    console.print(f"MLflow:  {ui_command(storage)}", soft_wrap=True)
    return 0


def _checked(experiment: Experiment, methods: tuple[str, ...], workers: Workers) -> DatasetInfo:
    config = experiment.pretrain
    if config.method not in methods:
        allowed = ", ".join(methods)
        raise ConfigError(f"pretrain.method = {config.method!r}: allowed here are {allowed}")
    pretrain_counts(config, workers)
    info = described(experiment.data)
    if config.trains_generator:
        check_images(config, info.counts["unlabelled"] or info.counts["train"])
    return info


def _train(
    experiment: Experiment,
    stage: Stage,
    store: StageStore,
    *,
    info: DatasetInfo,
    options: argparse.Namespace,
    screen: Console,
) -> None:
    tracked = PretrainingRun(store, stage, experiment, info=info, preset=options.preset)
    throttle = terminal.Throttle(10.0)
    speed = _Speed(experiment.pretrain.images_per_step)

    def report(progress: Progress) -> None:
        tracked.log(progress)
        if throttle.ready() or progress.step == progress.steps:
            screen.print(speed.line(progress), soft_wrap=True)

    try:
        if options.workers.several or options.address or not store.storage.is_local:
            _train_on_ray(experiment, stage, store, options=options, screen=screen, report=report)
        else:
            _train_here(experiment, stage, store, report)
    except BaseException:
        tracked.close("FAILED")
        raise
    tracked.finish(json.loads((store.directory(stage) / "curve.json").read_text()))
    if tracked.problem is not None:
        screen.print(f"MLflow could not be reached: {tracked.problem}", soft_wrap=True)


def _train_on_ray(
    experiment: Experiment,
    stage: Stage,
    store: StageStore,
    *,
    options: argparse.Namespace,
    screen: Console,
    report: Callable[[Progress], None],
) -> None:
    import ray

    from raysweep.orchestration.on_ray.train import pretrain_on_workers
    from raysweep.orchestration.on_ray.tune import start_ray

    start_ray(options.address)
    try:
        materialise_in_parallel(experiment.data, store.storage, screen)
        counts = pretrain_counts(experiment.pretrain, options.workers)
        pretrain_on_workers(experiment, stage, storage=store.storage, counts=counts, report=report)
    finally:
        ray.shutdown()


def _train_here(
    experiment: Experiment, stage: Stage, store: StageStore, report: Callable[[Progress], None]
) -> None:
    from raysweep.orchestration.compute.datasets import opened
    from raysweep.orchestration.on_ray.slots import device_here

    device = device_here()
    dataset = opened(experiment.data, store.storage.uri)
    with store.claim(stage) as workspace:
        if workspace is not None:
            chain = chain_of(experiment, dataset.info.fingerprint)
            run_with = Run(store, dataset, device, report)
            workspace.commit(pretrain(experiment, chain, workspace, run_with))


class _Speed:
    """Words the progress of a training, with the time that is left at the speed so far."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self.first: tuple[int, float] | None = None

    def line(self, progress: Progress) -> str:
        now, step = time.monotonic(), progress.step
        start, since = self.first = self.first or (step, now)
        left = "?"
        if step > start:
            left = terminal.clock((now - since) / (step - start) * (progress.steps - step))
        kimg, total = (count * self.images_per_step / 1000 for count in (step, progress.steps))
        shown = ", ".join(f"{key} {value:.3g}" for key, value in progress.metrics.items())
        return f"{kimg:.1f} of {total:.1f} kimg, {left} left  {shown}"


def _preview(console: Console, experiment: Experiment, stage: Stage, store: StageStore) -> None:
    state = "done" if store.done(stage) else "to resume" if store.started(stage) else "to run"
    config, work = experiment.pretrain, work_of(experiment, {})["pretrain"]
    seconds = 0.0 if state == "done" else work.seconds("pretrain")
    console.print(f"{stage}: {state}")
    console.print(
        f"{config.method}, {config.steps_in_all} steps of {config.images_per_step} images"
    )
    console.print(f"time: about {terminal.clock(seconds)} of one core")
    console.print(f"disk: about {disk_gib(experiment):.2f} GiB for weights and checkpoints")
    if seconds > LONG_SECONDS:
        hours = hours_of(work, experiment, "pretrain")
        print_hours(console, hours, {"pretrain": gpu_gib(experiment)["pretrain"]})
