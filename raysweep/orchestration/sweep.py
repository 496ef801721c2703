"""A sweep from flags to table: check, plan, run what is missing, report.

The same command again is the resume command: finished stages are found in the store, half-done
ones go on from their last checkpoint, and when nothing is missing only the table is printed.
"""

from __future__ import annotations

import argparse
import math
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
from raysweep.orchestration.plan import Plan, SearchSpace, Trial, in_order, make_plan
from raysweep.orchestration.preview import preview
from raysweep.orchestration.render import materialise_in_parallel
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.tune import (
    Listener,
    concurrency,
    run_search,
    run_trials,
    searched,
    start_ray,
)
from raysweep.presets import PRESETS, Experiment

if TYPE_CHECKING:
    from raysweep.orchestration.tracking import Tracker


@dataclass
class Sweep:
    """A sweep whose input has been checked."""

    name: str
    space: SearchSpace
    preset: str
    workers: int
    address: str | None
    base: Experiment
    info: DatasetInfo
    plan: Plan
    store: StageStore
    samples: int | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def pending(self) -> list[Trial]:
        """Return the trials that must run; of a search, those of the baselines and what is left."""
        missing = self.plan.pending(self.store)
        if self.samples is None or searched(self.study) < self.samples:
            return missing
        return [trial for trial in missing if trial.row in self.space.BASELINES]

    def unfinished(self) -> int:
        """Return how many trials have neither a result nor a failure."""
        return sum(str(trial) not in self.failures for trial in self.pending())

    @property
    def study(self) -> Path:
        """The database of a search."""
        return self.directory / "optuna.db"

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
    if sweep.unfinished():
        console.print(f"stopped: {sweep.unfinished()} trials are left; the same command goes on")
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
    plan = make_plan(
        space, base, preset=options.preset, repeats=repeats, fingerprint=info.fingerprint
    )
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
        store=StageStore(storage),
        samples=_samples(plan, options),
    )


def _execute(sweep: Sweep, screen: Console) -> tuple[Outcome, Tracker]:
    """Run what is missing, write the outcome, bring MLflow up to date."""
    from raysweep.orchestration.tracking import Tracker  # MLflow takes seconds to import

    tracker = Tracker(sweep.name, sweep.plan, sweep.store, info=sweep.info, preset=sweep.preset)
    with ThreadPoolExecutor(max_workers=1) as clerk:  # MLflow must not hold up the trials
        pending = sweep.pending()
        tracked = tracker.is_up_to_date() and not pending
        if not tracked:
            clerk.submit(tracker.open)
        if pending:
            _run(sweep, pending, screen, tracker=tracker, clerk=clerk)
        outcome = write_outcome(
            sweep.directory,
            sweep.plan,
            sweep.space,
            sweep.store,
            info=sweep.info,
            preset=sweep.preset,
            failures=sweep.failures,
        )
        if not tracked:
            status = "FAILED" if sweep.failures or sweep.unfinished() else "FINISHED"
            clerk.submit(tracker.close, files=outcome.files, status=status).result()
    return outcome, tracker


def _run(
    sweep: Sweep, pending: list[Trial], screen: Console, *, tracker: Tracker, clerk: Executor
) -> None:
    """Start Ray, prepare the data, run the missing trials."""
    clock = Clock(sweep.plan.trials, sweep.store, sweep.info.counts)
    storage = sweep.store.storage
    screen.print(
        f"{sweep.name}: {len(pending)} of {len(sweep.plan.trials)} trials to run; "
        f"log: {sweep.directory / 'log.txt'}",
        soft_wrap=True,
    )
    start_ray(sweep.address)
    try:
        materialise_in_parallel(sweep.base.data, storage, screen)
        if sweep.workers > 1:
            _pretrain_on_workers(sweep, pending, screen)
        ordered = in_order(pending, clock, sweep.store)
        monitor = Monitor(
            screen, ordered, total=len(sweep.plan.trials), times=clock, store=sweep.store
        )
        screen.print(f"running {concurrency()} trials at a time")

        def finished(trial: Trial) -> None:
            monitor.finished(trial)
            clerk.submit(tracker.log, trial)

        def failed(trial: Trial, message: str) -> None:
            monitor.failed(trial, message)
            sweep.failed(trial, message)

        listener = Listener(progress=monitor.progress, finished=finished, failed=failed)
        if sweep.samples is None:
            run_trials(ordered, storage=storage, listener=listener)
        else:
            _search(sweep, ordered, listener)
    finally:
        ray.shutdown()


def _search(sweep: Sweep, ordered: list[Trial], listener: Listener) -> None:
    """Run the baselines, then as many configurations as were asked for."""
    assert sweep.samples is not None
    storage = sweep.store.storage
    baselines = [trial for trial in ordered if trial.row in sweep.space.BASELINES]
    if baselines:
        run_trials(baselines, storage=storage, listener=listener)
    run_search(
        [trial for trial in sweep.plan.trials if trial.row not in sweep.space.BASELINES],
        storage=storage,
        listener=listener,
        samples=sweep.samples,
        axes=sweep.plan.axes,
        metric=sweep.space.METRIC,
        study=sweep.study,
    )


def _samples(plan: Plan, options: argparse.Namespace) -> int | None:
    """Return how many configurations a search tries, at most all of them; None for a grid."""
    if options.search == "grid":
        if options.num_samples is not None:
            raise ConfigError("--num-samples: only with --search optuna; a grid runs all cells")
        return None
    cells = math.prod(len(values) for values in plan.axes.values())
    return min(options.num_samples or cells, cells)


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
