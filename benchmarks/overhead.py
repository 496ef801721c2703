"""What raysweep adds to a trial: a sweep whose stages are all done, against bare Ray Tune.

One trial is computed; its stages are copied under the keys of the others, so that every trial of
the sweep finds its results at once. Ours runs them as a sweep does, with the monitor, MLflow and
the lookups in the stage store; Ray's own is the same Tune run of an empty function. Prints seconds
per trial of both and the difference, of which at most 0.5 s is acceptable.

    python benchmarks/overhead.py                 200 trials, minutes on two cores
    python benchmarks/overhead.py --trials 50
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from raysweep.data.dataset import DatasetInfo
from raysweep.experiment import Experiment
from raysweep.orchestration import cli, terminal
from raysweep.orchestration.on_ray.news import INDEX, Listener
from raysweep.orchestration.on_ray.render import materialise_in_parallel
from raysweep.orchestration.on_ray.tune import execute, run_trials, start_ray
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.planning.plan import Plan, Trial, make_plan
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.monitor import Monitor
from raysweep.orchestration.tracking.tracker import Tracker
from search_spaces import resolution

MOST_SECONDS = 0.5
"""Of our own, per trial."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides and print the difference; return 1 if it is too large."""
    flags = cli.parser(__doc__ or "")
    flags.add_argument("--trials", type=int, default=200, help="(default: %(default)s)")
    flags.set_defaults(preset="smoke")
    options = flags.parse_args(argv)
    base = cli.experiment_from(options)
    with tempfile.TemporaryDirectory() as folder:
        storage, info = Storage(folder), cli.checked(base)
        plan = _plan(base, info, options.trials)
        with terminal.quiet(Path(folder) / "log.txt") as screen:
            start_ray(options.address)
            materialise_in_parallel(base.data, storage, screen)
            _finish_all(list(plan.trials), storage)
            rays = _empty(len(plan.trials), storage)
            trials, mlflow = _sweep(plan, storage, info, options.preset)
            ray.shutdown()
    count = len(plan.trials)
    ours = (trials + mlflow - rays) / count
    print(f"{count} trials whose stages are done, seconds per trial")
    print(f"empty function under Ray Tune   {rays / count:.3f}")
    print(f"the sweep                       {trials / count:.3f}")
    print(f"MLflow, after the last trial    {mlflow / count:.3f}")
    print(f"of our own                      {ours:.3f}   (at most {MOST_SECONDS})")
    return 0 if ours <= MOST_SECONDS else 1


def _plan(base: Experiment, info: DatasetInfo, trials: int) -> Plan:
    """Return as many repeats of the cheapest cell: raw colour at the lowest resolution."""
    cell = resolution.cells("smoke")[0]
    return make_plan(resolution, base, cells=[cell], repeats=trials, fingerprint=info.fingerprint)


def _finish_all(trials: list[Trial], storage: Storage) -> None:
    """Compute the first trial, and give the others its results."""
    store = StageStore(storage)

    def fail(trial: Trial, message: str) -> None:
        raise RuntimeError(f"{trial}: {message}")

    quiet = Listener(progress=lambda *_: None, finished=lambda _: None, failed=fail)
    run_trials(trials[:1], storage=storage, listener=quiet)
    for trial in trials[1:]:
        for stage, model in zip(trial.chain, trials[0].chain, strict=True):
            _copy(store, model, stage)


def _copy(store: StageStore, source: Stage, target: Stage) -> None:
    place = Path(store.storage.path(*target.place))
    if place.exists():
        return
    shutil.copytree(store.directory(source), place)
    record = store.record(source) | {"key": target.key, "inputs": dict(target.inputs)}
    (place / "stage.json").write_text(json.dumps(record))


def _empty(count: int, storage: Storage) -> float:
    """Return the seconds of Ray Tune alone."""
    start = time.monotonic()
    execute(
        _nothing,
        storage=storage,
        callback=tune.Callback(),
        param_space={INDEX: tune.grid_search(list(range(count)))},
    )
    return time.monotonic() - start


def _nothing(_config: Mapping[str, Any]) -> None:
    """Do nothing."""


def _sweep(plan: Plan, storage: Storage, info: DatasetInfo, preset: str) -> tuple[float, float]:
    """Return the seconds of all trials, and those for which MLflow needs longer."""
    store, trials, count = StageStore(storage), list(plan.trials), len(plan.trials)
    papers = resolution.PAPERS
    tracker = Tracker("overhead", plan, store, papers=papers, info=info, preset=preset)
    Path(storage.path("overhead")).mkdir()
    monitor = Monitor(
        Console(file=sys.stdout),  # the log, within the block
        trials,
        total=count,
        left=count,
        times=Clock(plan.trials, store, info.counts),
        store=store,
    )
    start = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as clerk:
        clerk.submit(tracker.open)

        def finished(trial: Trial) -> None:
            monitor.finished(trial)
            clerk.submit(tracker.log, trial)

        listener = Listener(progress=monitor.progress, finished=finished, failed=monitor.failed)
        run_trials(trials, storage=storage, listener=listener)
        ran = time.monotonic() - start
        clerk.submit(tracker.close, files={}, status="FINISHED").result()
    if tracker.problem is not None or monitor.finished_trials != count:
        raise RuntimeError(f"{monitor.finished_trials} of {count} trials; {tracker.problem}")
    return ran, time.monotonic() - start - ran


if __name__ == "__main__":
    cli.finish(main)
