"""A sweep from flags to table: check, plan, run what is missing, report.

The same command again is the resume command: finished stages are found in the store, half-done
ones go on from their last checkpoint, and when nothing is missing only the table is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import ray
from rich.console import Console

from raysweep.orchestration import terminal
from raysweep.orchestration.estimate import Clock
from raysweep.orchestration.mlflow_client import ui_command
from raysweep.orchestration.monitor import Monitor
from raysweep.orchestration.outcome import Outcome, show, write_outcome
from raysweep.orchestration.plan import Changes, SearchSpace, Trial, in_order, make_trial
from raysweep.orchestration.prepared import Sweep, prepare
from raysweep.orchestration.preview import preview
from raysweep.orchestration.render import materialise_in_parallel
from raysweep.orchestration.search import News, Search
from raysweep.orchestration.tune import Listener, concurrency, run_trials, start_ray

if TYPE_CHECKING:
    from raysweep.orchestration.tracking import Tracker


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
    if options.dry_run:
        preview(console, sweep.plan, sweep.store, info=sweep.info)
        return 0
    with terminal.quiet(sweep.directory / "log.txt") as screen:
        outcome, tracker = _execute(sweep, screen)
    show(console, outcome, ui=ui_command(sweep.store.storage), failures=sweep.failures)
    if tracker.link is not None:
        console.print(f"then open {tracker.link}", soft_wrap=True)
    if tracker.problem is not None:
        console.print(
            f"MLflow could not be reached ({tracker.problem}); nothing is lost: the "
            "same command, given again when it can, sends what is missing"
        )
    if sweep.left():
        console.print(f"stopped: {sweep.left()} trials are left; the same command goes on")
        return 130
    return 1 if sweep.failures else 0


def _execute(sweep: Sweep, screen: Console) -> tuple[Outcome, Tracker]:
    """Run what is missing, write the outcome, bring MLflow up to date."""
    from raysweep.orchestration.tracking import Tracker  # MLflow takes seconds to import

    tracker = Tracker(
        sweep.name,
        sweep.plan,
        sweep.store,
        paper=sweep.space.PAPER,
        info=sweep.info,
        preset=sweep.preset,
    )
    with ThreadPoolExecutor(max_workers=1) as clerk:  # MLflow must not hold up the trials
        if sweep.left():
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
            clerk.submit(tracker.close, files=outcome.files, status=status).result()
    return outcome, tracker


def _run(sweep: Sweep, screen: Console, *, tracker: Tracker, clerk: Executor) -> None:
    """Start Ray, prepare the data, run the missing trials."""
    pending, storage = sweep.plan.pending(sweep.store), sweep.store.storage
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
        materialise_in_parallel(sweep.base.data, storage, screen)
        if sweep.workers > 1:
            _pretrain_on_workers(sweep, pending, screen)
        clock = Clock(sweep.plan.trials, sweep.store, sweep.info.counts)
        ordered = in_order(pending, clock, sweep.store)
        monitor = Monitor(
            screen, ordered, total=total, left=sweep.left(), times=clock, store=sweep.store
        )
        screen.print(f"running {concurrency()} trials at a time")

        def finished(trial: Trial) -> None:
            monitor.finished(trial)
            clerk.submit(tracker.log, trial)

        def failed(trial: Trial, message: str) -> None:
            monitor.failed(trial, message)
            sweep.failed(trial, message)

        if ordered:
            listener = Listener(progress=monitor.progress, finished=finished, failed=failed)
            run_trials(ordered, storage=storage, listener=listener)
        if sweep.search is not None:
            _search(sweep, sweep.search, finished=finished, failed=failed)
    finally:
        ray.shutdown()


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

    news = News(
        finished=lambda changes, repeat: finished(trial_of(changes, repeat)),
        failed=lambda changes, repeat, message: failed(trial_of(changes, repeat), message),
    )
    sweep.directory.mkdir(parents=True, exist_ok=True)
    search.run(storage=sweep.store.storage, news=news)


def _pretrain_on_workers(sweep: Sweep, pending: list[Trial], screen: Console) -> None:
    """Train the missing representations one after the other, each on all workers."""
    from raysweep.orchestration.train import pretrain_on_workers
    from raysweep.orchestration.worker import Progress

    throttle = terminal.Throttle(10.0)
    for trial in pending:
        stage = trial.chain.pretrain
        if not trial.experiment.pretrain.learnt or sweep.store.done(stage):
            continue

        def report(progress: Progress, row: str = trial.row) -> None:
            if throttle.ready():
                share = progress.step / progress.steps
                loss = progress.metrics.get("loss", float("nan"))
                screen.print(
                    f"pretrain {row} on {sweep.workers} workers {share:.0%} loss {loss:.2f}"
                )

        pretrain_on_workers(
            trial.experiment,
            stage,
            storage=sweep.store.storage,
            workers=sweep.workers,
            report=report,
        )
