"""Run trials side by side under Ray Tune; single-device stages live inside the Tune function.

A trial asks the stage store first, so Tune's own state is a scratch pad: it may be lost at any
moment and is deleted at the end.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import tune

from raysweep.config import from_dict, to_dict
from raysweep.data.builtin import BuiltinConfig
from raysweep.data.dataset import Dataset, open_dataset
from raysweep.orchestration.pipeline import Run, compute
from raysweep.orchestration.plan import Trial
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.terminal import Throttle
from raysweep.orchestration.worker import Progress
from raysweep.presets import DataConfig, Experiment

REPORT_SECONDS = 2.0


@dataclass(frozen=True)
class Listener:
    """What the driver does with news of trials."""

    progress: Callable[[Trial, Progress], None]
    finished: Callable[[Trial], None]
    failed: Callable[[Trial, str], None]


def start_ray(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at ``address``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def run_trials(
    trials: list[Trial], *, storage: Storage, listener: Listener, apart: bool = False
) -> None:
    """Compute all trials, as many at a time as the cluster has cores (or GPUs).

    Args:
        trials: in the order in which they are to start.
        storage: holds the stages and the data.
        listener: hears of progress and ends.
        apart: give every trial a store of its own; only to measure what sharing buys.
    """
    slots = {"cpu": 1.0} | ({"gpu": 1.0} if ray.cluster_resources().get("GPU") else {})
    scratch = storage.path("work", "tune") if storage.is_local else f"{storage.uri}/work/tune"
    trainable = tune.with_parameters(
        _trial,
        experiments=[to_dict(trial.experiment) for trial in trials],
        storage_uri=storage.uri,
        apart=apart,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, slots),
        param_space={"index": tune.grid_search(list(range(len(trials))))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrency(),
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['index']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['index']}",
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=2),
            callbacks=[_News(trials, listener)],
        ),
    )
    tuner.fit()
    if storage.is_local:
        shutil.rmtree(scratch, ignore_errors=True)


def concurrency() -> int:
    """Return how many single-device trials the cluster can run at a time."""
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 1)))


def device_here() -> torch.device:
    """Return the accelerator given to this process, else the CPU with one thread.

    One thread per worker: side by side they are faster than one worker with many, and results do
    not depend on the machine's number of cores.
    """
    torch.set_num_threads(1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def opened(data: DataConfig, storage_uri: str) -> Dataset:
    """Open a dataset once per process; decoded images stay in memory for the next trial."""
    return _opened(data.source, data.builtin, storage_uri)


@functools.lru_cache(maxsize=2)
def _opened(source: str, builtin: BuiltinConfig, storage_uri: str) -> Dataset:
    cache = Storage(storage_uri).local("data")
    return open_dataset(source, cache=cache, builtin=builtin)


def _trial(
    config: Mapping[str, Any],
    *,
    experiments: list[dict[str, Any]],
    storage_uri: str,
    apart: bool,
) -> None:
    """The Tune function: compute one experiment; an exception becomes a ``failure`` report."""
    device = device_here()
    experiment = from_dict(Experiment, experiments[config["index"]])
    throttle = Throttle(REPORT_SECONDS)

    def report(progress: Progress) -> None:
        if throttle.ready():
            tune.report({"progress": vars(progress)})

    try:
        dataset = opened(experiment.data, storage_uri)
        place = f"{storage_uri}/apart-{config['index']}" if apart else storage_uri
        store = StageStore(Storage(place))
        compute(experiment, Run(store, dataset, device, report))
    except Exception as error:  # reported with its traceback; the other trials go on
        tune.report({"failure": f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"})
        return
    tune.report({"finished": True})


class _News(tune.Callback):
    """Passes reports on to the driver's listener."""

    def __init__(self, trials: list[Trial], listener: Listener) -> None:
        self.trials, self.listener = trials, listener

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore them; we never do, and listeners hold files."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        which = self.trials[trial.config["index"]]
        if "progress" in result:
            self.listener.progress(which, Progress(**result["progress"]))
        elif "failure" in result:
            self.listener.failed(which, result["failure"])
        elif result.get("finished"):
            self.listener.finished(which)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        which = self.trials[trial.config["index"]]
        self.listener.failed(which, f"the worker died\n\n{trial.get_error()}")
