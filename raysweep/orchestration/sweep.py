"""A sweep from flags to table: check, plan, run what is missing, report.

The same command again is the resume command: finished stages are found in the store, half-done
ones go on from their last checkpoint, and when nothing is missing only the table is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from rich.console import Console

from raysweep.config import ConfigError, digest, override
from raysweep.data.dataset import DatasetInfo
from raysweep.orchestration import terminal
from raysweep.orchestration.cli import checked, experiment_from
from raysweep.orchestration.estimate import Clock
from raysweep.orchestration.mlflow_client import ui_command
from raysweep.orchestration.monitor import Monitor
from raysweep.orchestration.outcome import Outcome, log_name, show, write_outcome
from raysweep.orchestration.plan import (
    Cell,
    Changes,
    Plan,
    SearchSpace,
    Trial,
    in_order,
    make_plan,
    make_trial,
)
from raysweep.orchestration.preview import preview
from raysweep.orchestration.render import materialise_in_parallel
from raysweep.orchestration.search import News, Search, best_cells
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.tune import Listener, concurrency, run_trials, start_ray
from raysweep.presets import PRESETS, Experiment

if TYPE_CHECKING:
    from raysweep.orchestration.tracking import Tracker

SAMPLES = 20
"""Configurations that a search tries if the user does not say."""
SHOWN = 10
"""Configurations of a search in the table, the best by validation mIoU."""


@dataclass
class Sweep:
    """A sweep whose input has been checked.

    Attributes:
        plan: the grid's trials; of a search those of the baselines, and in the end of the best.
        search: how configurations are chosen, None for a grid.
        failures: trial to what went wrong.
    """

    name: str
    space: SearchSpace
    preset: str
    workers: int
    address: str | None
    base: Experiment
    info: DatasetInfo
    plan: Plan
    repeats: int
    store: StageStore
    search: Search | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def left(self) -> int:
        """Return how many trials have neither a result nor a failure."""
        known = sum(str(t) not in self.failures for t in self.plan.pending(self.store))
        return known + self.untried() * self.repeats

    def untried(self) -> int:
        """Return how many configurations a search has still to choose."""
        return 0 if self.search is None else max(0, self.search.samples - self.search.tried())

    def with_best(self) -> Plan:
        """Return the plan with the best configurations that a search has found."""
        if self.search is None:
            return self.plan
        known = {trial.configuration: trial.cell for trial in self.plan.trials}
        best = best_cells(self.search, most=SHOWN, done=self._is_done)
        return self._plan_of([*known.values(), *best])

    def _plan_of(self, cells: list[Cell]) -> Plan:
        fingerprint = self.info.fingerprint
        return make_plan(
            self.space, self.base, cells=cells, repeats=self.repeats, fingerprint=fingerprint
        )

    def _is_done(self, cell: Cell) -> bool:
        trials = self._plan_of([cell]).trials
        return all(self.store.done(trial.chain.evaluate) for trial in trials)

    @property
    def directory(self) -> Path:
        """Where the table, the figure, the report and the logs go."""
        return self.store.storage.local(self.name)

    def failed(self, trial: Trial, message: str) -> None:
        """Keep what went wrong, the whole of it in the trial's log."""
        self.failures[str(trial)] = message
        place = self.directory / "logs" / log_name(str(trial))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(message)


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


def prepare(title: str, space: SearchSpace, options: argparse.Namespace) -> Sweep:
    """Check all input and expand the search space; touch nothing but the storage directory.

    Raises:
        ValueError: names the flag or setting, its value, what is allowed and what to do.
    """
    base = experiment_from(options)
    if options.workers > 1 and base.pretrain.batch % options.workers:
        raise ConfigError(
            f"--workers {options.workers}: must divide pretrain.batch = {base.pretrain.batch}"
        )
    storage = Storage(options.storage)
    info = checked(base)
    storage.check_writable()
    repeats = options.repeats or space.REPEATS[options.preset]
    cells = space.cells(options.preset)
    if options.search == "optuna":
        cells = [cell for cell in cells if cell.row in space.BASELINES]
    plan = make_plan(space, base, cells=cells, repeats=repeats, fingerprint=info.fingerprint)
    name = f"{title}-{options.preset}-{info.name}"
    plain = override(PRESETS[options.preset](), {"data.source": base.data.source})
    if base != plain:  # settings were changed: a directory of its own
        name += f"-{digest(base, length=6)}"
    return Sweep(
        name=name,
        space=space,
        preset=options.preset,
        workers=options.workers,
        address=options.address,
        base=base,
        info=info,
        plan=plan,
        repeats=repeats,
        store=StageStore(storage),
        search=_search_of(space, base, options, repeats, storage.local(name, "optuna.db")),
    )


def _search_of(
    space: SearchSpace, base: Experiment, options: argparse.Namespace, repeats: int, study: Path
) -> Search | None:
    if options.search == "grid":
        if options.num_samples is not None:
            raise ConfigError("--num-samples: only with --search optuna; a grid runs all cells")
        return None
    if base.evaluate.protocol != "held_out":
        raise ConfigError(
            "--search optuna compares configurations on the validation split: it needs --set "
            "evaluate.protocol=held_out"
        )
    samples = options.num_samples or SAMPLES
    return Search(space, options.preset, base, repeats, samples, study)


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
