"""What sharing stages buys: the 3 x 3 sweep against nine independent end-to-end runs.

Both sides run the same nine cells (one repeat each, no baselines) through the same Ray Tune driver
at the same parallelism; the independent side gives every trial a store of its own, so nothing is
shared. Prints both wall times, their ratio, and the sweep's overhead: its wall time against the sum
of its stages' own times divided by the parallelism.

    python benchmarks/sweep.py                          demo preset, about 25 minutes on two cores
    python benchmarks/sweep.py --set pretrain.steps=300
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import ray

from raysweep.orchestration import cli, terminal
from raysweep.orchestration.on_ray.news import Listener
from raysweep.orchestration.on_ray.render import materialise_in_parallel
from raysweep.orchestration.on_ray.slots import Gpus, Slots
from raysweep.orchestration.on_ray.tune import run_trials, start_ray
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.planning.plan import Plan, Trial, in_order, make_plan
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from search_spaces import resolution


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides in one process and print the comparison."""
    flags = cli.parser(__doc__ or "", sweep=True)
    options = flags.parse_args(argv)
    base = cli.experiment_from(options)
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        info = cli.checked(base)
        every = resolution.cells(options.preset)
        plan = make_plan(resolution, base, cells=every, repeats=1, fingerprint=info.fingerprint)
        cells = [trial for trial in plan.trials if trial.row not in resolution.BASELINES]
        with terminal.quiet(Path(folder) / "log.txt") as screen:
            start_ray(options.address)
            materialise_in_parallel(base.data, storage, screen)
            slots = Slots.of_cluster(Gpus()).count
            shared = _timed(cells, plan, storage)
            independent = _timed(cells, plan, storage, apart=True)
            ray.shutdown()
        own = sum(
            StageStore(storage).record(stage)["cost"]["seconds"]
            for stage in {str(stage): stage for trial in cells for stage in trial.chain}.values()
        )
    print(f"{len(cells)} cells, {slots} at a time")
    print(f"shared stages     {shared:8.1f} s")
    print(f"independent runs  {independent:8.1f} s   {independent / shared:.2f}x the time")
    bound = own / slots
    print(f"stages / {slots}        {bound:8.1f} s   the sweep took {shared / bound:.2f}x of it")
    return 0


def _timed(cells: list[Trial], plan: Plan, storage: Storage, *, apart: bool = False) -> float:
    """Return the wall time of all cells, each in a store of its own if ``apart``."""

    def fail(trial: Trial, message: str) -> None:
        raise RuntimeError(f"{trial}: {message}")

    store = StageStore(storage)
    ordered = in_order(cells, Clock(plan.trials, store, {"val": 50, "test": 100}), store)
    listener = Listener(progress=lambda *_: None, finished=lambda _: None, failed=fail)
    start = time.monotonic()
    run_trials(ordered, storage=storage, listener=listener, apart=apart)
    return time.monotonic() - start


if __name__ == "__main__":
    cli.finish(main)
