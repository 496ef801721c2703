"""What ``--dry-run`` prints: trials, stages, what is shared, what is done, time, memory, disk."""

from __future__ import annotations

import os

import rich.box
import rich.table
from rich.console import Console

from raysweep.data.dataset import DatasetInfo
from raysweep.orchestration.planning.devices import LONG_SECONDS, print_devices
from raysweep.orchestration.planning.estimate import NAMES, Clock, disk_gib, peak_gib
from raysweep.orchestration.planning.plan import Plan
from raysweep.orchestration.planning.prices import read_prices, show_cost
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.terminal import clock


def preview(
    console: Console,
    plan: Plan,
    store: StageStore,
    *,
    info: DatasetInfo,
    prices: str | None = None,
) -> None:
    """Print the plan; nothing is started and nothing is written.

    Args:
        console: where to.
        plan: what is asked for.
        store: knows what is done.
        info: the dataset.
        prices: file that says what machines cost; see :func:`read_prices`.

    Raises:
        ConfigError: the prices cannot be used; nothing has been printed.
    """
    price_list = None if prices is None else read_prices(prices)
    times = Clock(plan.trials, store, info.counts)
    table, left = _stages(plan, store, times)
    console.print(f"{len(plan.trials)} trials on {info.name} ({info.fingerprint})")
    for trial in plan.trials:
        state = "done" if store.done(trial.chain.evaluate) else "to run"
        keys = " -> ".join(stage.key[:8] for stage in trial.chain)
        console.print(f"  {state:7} {trial}: {keys}", soft_wrap=True)
    console.print(table)
    _print_resources(console, plan, store, info=info, seconds=left)
    if left > LONG_SECONDS:
        print_devices(console, plan, store, counts=info.counts)
    show_cost(console, plan, store, times=times, seconds=left, prices=price_list)


def _stages(plan: Plan, store: StageStore, times: Clock) -> tuple[rich.table.Table, float]:
    """Return the table of stages by kind, and the seconds of one worker that are left."""
    stages = plan.stages()
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("stage", "needed", "distinct", "done", "to resume", "to run", "about"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    left = 0.0
    for name in NAMES:
        here = {stage: trials for stage, trials in stages.items() if stage.name == name}
        done = sum(store.done(stage) for stage in here)
        resume = sum(store.started(stage) and not store.done(stage) for stage in here)
        seconds = sum(
            times.of(trials[0], stage) for stage, trials in here.items() if not store.done(stage)
        )
        left += seconds
        counts = (len(plan.trials), len(here), done, resume, len(here) - done)
        table.add_row(name, *map(str, counts), clock(seconds))
    return table, left


def _print_resources(
    console: Console, plan: Plan, store: StageStore, *, info: DatasetInfo, seconds: float
) -> None:
    cores = os.cpu_count() or 1
    images = info.counts.get("unlabelled", 0) or info.counts.get("train", 0)
    memory = max(peak_gib(trial.experiment, images) for trial in plan.trials)
    pending = [
        (stage, trials)
        for stage, trials in plan.stages().items()
        if stage.name == "pretrain" and not store.done(stage)
    ]
    disk = sum(disk_gib(trials[0].experiment) for _, trials in pending)
    console.print(
        f"time: about {clock(seconds)} of one worker, {clock(seconds / cores)} on this machine's "
        f"{cores} cores"
    )
    console.print(f"memory: about {memory:.1f} GiB per worker, {memory * cores:.1f} GiB together")
    console.print(f"disk: about {disk:.2f} GiB for weights and checkpoints")
