"""A sweep from flags to table: check, plan, run what is missing, report.

The same command again is the resume command: finished stages are found in the store, half-done
ones go on from their last checkpoint, and when nothing is missing only the table is printed.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import ray
from rich.console import Console

from raysweep.config import ConfigError
from raysweep.orchestration import terminal
from raysweep.orchestration.compute.mending import mend
from raysweep.orchestration.compute.worker import Progress, Report
from raysweep.orchestration.on_ray.elastic import pretrain_counts
from raysweep.orchestration.on_ray.news import Listener
from raysweep.orchestration.on_ray.render import materialise_in_parallel
from raysweep.orchestration.on_ray.slots import Slots
from raysweep.orchestration.on_ray.tune import failure_text, run_trials, start_ray
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.planning.plan import Changes, SearchSpace, Trial, in_order, make_trial
from raysweep.orchestration.store.storage import is_full
from raysweep.orchestration.sweeps.monitor import Monitor
from raysweep.orchestration.sweeps.outcome import Outcome, announce, show, write_outcome
from raysweep.orchestration.sweeps.prepared import Sweep, prepare, trainings
from raysweep.orchestration.sweeps.preview import preview
from raysweep.orchestration.sweeps.search import News, Search
from raysweep.orchestration.tracking.client import ui_command

if TYPE_CHECKING:
    from raysweep.orchestration.tracking.tracker import Tracker

LOG = logging.getLogger(__name__)


PATIENCE_SECONDS = 15.0
"""A silent wait for MLflow is no longer than this."""


def run_sweep(title: str, space: SearchSpace, options: argparse.Namespace) -> int:
    """Run a job's sweep; return its exit code.

    Args:
        title: short name of the sweep, e.g. ``resolution``.
        space: the page that says what is swept.
        options: parsed flags of :func:`raysweep.orchestration.cli.parser`.

    Raises:
        ValueError: the input cannot be used; nothing has been started.
    """
    sweep = prepare(title, space, options)
    console = terminal.console()
    for sentence in sweep.left_out:
        console.print(sentence)
    if options.dry_run:
        preview(console, sweep.plan, sweep.store, info=sweep.info, prices=options.prices)
        return 0
    try:
        with terminal.quiet(sweep.directory / "log.txt") as screen:
            outcome, tracker = _execute(sweep, screen)
    except Exception as error:
        if not is_full(error):
            raise
        console.print(_no_room(sweep))
        return 1
    show(console, outcome, ui=ui_command(sweep.store.storage), failures=sweep.failures)
    if tracker.link is not None:
        console.print(f"then open {tracker.link}", soft_wrap=True)
    if tracker.problem is not None:
        console.print(
            f"MLflow has not received everything ({tracker.problem}); nothing is lost: the "
            "same command, given again when it can be reached, sends what is missing"
        )
    if sweep.left():
        console.print(f"stopped: {sweep.left()} trials are left; the same command goes on")
        return 130
    return 1 if sweep.failures else 0


def _no_room(sweep: Sweep) -> str:
    return (
        f"error: no room is left on the disk of --storage {sweep.store.storage.uri}; what is "
        "finished is safe: make room, and the same command goes on"
    )


def _execute(sweep: Sweep, screen: Console) -> tuple[Outcome, Tracker]:
    """Run what is missing, write the outcome, bring MLflow up to date."""
    from raysweep.orchestration.tracking.tracker import Tracker  # MLflow takes seconds to import

    tracker = Tracker(
        sweep.name,
        sweep.plan,
        sweep.store,
        papers=sweep.space.PAPERS,
        info=sweep.info,
        preset=sweep.preset,
    )
    with ThreadPoolExecutor(max_workers=1) as clerk:  # MLflow must not hold up the trials
        if sweep.left():
            announce(
                sweep.directory,
                sweep.plan,
                sweep.space,
                sweep.store,
                info=sweep.info,
                preset=sweep.preset,
            )
            clerk.submit(tracker.open)
            _run(sweep, screen, tracker=tracker, clerk=clerk)
        sweep.plan = tracker.plan = sweep.with_best()
        outcome = write_outcome(
            sweep.directory,
            sweep.plan,
            sweep.space,
            sweep.store,
            info=sweep.info,
            preset=sweep.preset,
            failures=sweep.failures,
        )
        if not tracker.is_up_to_date() or sweep.failures:
            status = "FAILED" if sweep.failures or sweep.left() else "FINISHED"
            sending = clerk.submit(tracker.close, files=outcome.files, status=status)
            while wait([sending], timeout=PATIENCE_SECONDS).not_done:
                screen.print("the results are on their way to MLflow")
            sending.result()
    return outcome, tracker


def _run(sweep: Sweep, screen: Console, *, tracker: Tracker, clerk: Executor) -> None:
    """Start Ray, prepare the data, run the missing trials."""
    total = len(sweep.plan.trials)
    if sweep.search is not None:
        total += sweep.search.samples * sweep.repeats
    screen.print(
        f"{sweep.name}: {sweep.left()} of {total} trials to run; "
        f"log: {sweep.directory / 'log.txt'}",
        soft_wrap=True,
    )
    start_ray(sweep.address)
    try:
        _run_on_ray(sweep, screen, total=total, tracker=tracker, clerk=clerk)
    finally:
        ray.shutdown()


def _run_on_ray(
    sweep: Sweep, screen: Console, *, total: int, tracker: Tracker, clerk: Executor
) -> None:
    pending, storage = sweep.plan.pending(sweep.store), sweep.store.storage
    mend(sweep.base.data, storage)
    materialise_in_parallel(sweep.base.data, storage, screen)
    if sweep.workers.several:
        _pretrain_on_workers(sweep, pending, screen)
        pending = [trial for trial in pending if str(trial) not in sweep.failures]
    clock = Clock(sweep.plan.trials, sweep.store, sweep.info.counts)
    ordered = in_order(pending, clock, sweep.store)
    monitor = Monitor(
        screen, ordered, total=total, left=sweep.left(), times=clock, store=sweep.store
    )
    screen.print(f"running {Slots.of_cluster(sweep.gpus).count} trials at a time")

    def finished(trial: Trial) -> None:
        monitor.finished(trial)
        clerk.submit(tracker.log, trial)

    def failed(trial: Trial, message: str) -> None:
        monitor.failed(trial, message)
        sweep.failed(trial, message)

    if ordered:
        listener = Listener(progress=monitor.progress, finished=finished, failed=failed)
        run_trials(ordered, storage=storage, listener=listener, gpus=sweep.gpus)
    if sweep.search is not None:
        _search(sweep, sweep.search, finished=finished, failed=failed)


def _search(
    sweep: Sweep,
    search: Search,
    *,
    finished: Callable[[Trial], None],
    failed: Callable[[Trial, str], None],
) -> None:
    """Try configurations; those that fail or are stopped early do not end the search."""

    def trial_of(changes: Changes, repeat: int) -> Trial:
        cell = search.space.place(search.preset, changes)
        fingerprint = sweep.info.fingerprint
        return make_trial(search.space, search.base, cell, repeat=repeat, fingerprint=fingerprint)

    def tell_failed(changes: Changes, repeat: int, message: str) -> None:
        try:
            trial = trial_of(changes, repeat)
        except ConfigError as error:  # a choice that the settings do not allow is no trial
            LOG.warning("left out: %s", error)
        else:
            failed(trial, message)

    news = News(
        finished=lambda changes, repeat: finished(trial_of(changes, repeat)),
        failed=tell_failed,
    )
    sweep.directory.mkdir(parents=True, exist_ok=True)
    search.run(storage=sweep.store.storage, news=news, gpus=sweep.gpus)


def _pretrain_on_workers(sweep: Sweep, pending: list[Trial], screen: Console) -> None:
    """Train the missing representations and trunks one after the other, each on all workers.

    One that fails takes the trials with it that are built on it.
    """
    from ray.train import TrainingFailedError

    from raysweep.orchestration.on_ray.train import pretrain_on_workers

    for trial in pending:
        for stage, experiment in trainings(trial):
            if sweep.store.done(stage) or str(trial) in sweep.failures:
                continue
            what = (
                f"pretrain {trial.row}" if stage == trial.chain.pretrain else f"trunk {trial.row}"
            )
            try:
                pretrain_on_workers(
                    experiment,
                    stage,
                    storage=sweep.store.storage,
                    counts=pretrain_counts(experiment.pretrain, sweep.workers),
                    report=_reporter(f"{what} on {sweep.workers} workers", screen),
                )
            except TrainingFailedError as error:
                screen.print(f"FAILED  {what}: {str(error).partition(chr(10))[0]}")
                for built in pending:
                    if stage in (built.chain.pretrain, built.chain.trunk):
                        sweep.failed(built, failure_text(error))


def _reporter(what: str, screen: Console) -> Report:
    """Return what says from time to time how far a training is."""
    throttle = terminal.Throttle(10.0)

    def report(progress: Progress) -> None:
        if throttle.ready():
            share = progress.step / progress.steps
            loss = progress.metrics.get("loss", float("nan"))
            screen.print(f"{what} {share:.0%} loss {loss:.2f}")

    return report
