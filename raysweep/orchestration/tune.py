"""Run trials side by side under Ray Tune; single-device stages live inside the Tune function.

A trial asks the stage store first, so Tune's own state is a scratch pad: it may be lost at any
moment and is deleted at the end.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import statistics
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from raysweep.config import from_dict, to_dict
from raysweep.data.builtin import BuiltinConfig
from raysweep.data.dataset import Dataset, open_dataset
from raysweep.orchestration.pipeline import compute
from raysweep.orchestration.plan import Trial
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.terminal import Throttle
from raysweep.orchestration.worker import Progress, Run
from raysweep.presets import DataConfig, Experiment

REPORT_SECONDS = 2.0
INDICES = "indices"
STUDY = "sweep"
SCORE = "score"


@dataclass(frozen=True)
class Listener:
    """What the driver does with news of trials."""

    progress: Callable[[Trial, Progress], None]
    finished: Callable[[Trial], None]
    failed: Callable[[Trial, str], None]


def start_ray(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at ``address``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # the default yields to everything else
    # glibc gives large activations back to the system at every step: a fifth of a fit on a CPU
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32 - 1))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))
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
    every = tune.grid_search([[index] for index in range(len(trials))])
    _tune(trials, storage, listener, apart=apart, param_space={INDICES: every})


def run_search(
    trials: list[Trial],
    *,
    storage: Storage,
    listener: Listener,
    samples: int,
    axes: Mapping[str, Sequence[Any]],
    metric: tuple[str, str],
    study: Path,
) -> None:
    """Let Optuna choose configurations by the mean score of their repeats.

    Args:
        trials: all repeats of all configurations.
        storage: holds the stages and the data.
        listener: hears of progress and ends.
        samples: configurations to try, those of an earlier call that was killed included.
        axes: dotted setting to its values.
        metric: name of a score of the evaluation, and ``max`` or ``min``.
        study: database of the search; it survives a kill.
    """
    finished = searched(study)
    if finished >= samples:
        return
    cells: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, trial in enumerate(trials):
        cells[tuple(trial.axes[axis] for axis in axes)].append(index)
    search = OptunaSearch(
        functools.partial(_suggest, axes, cells),
        metric=SCORE,
        mode=metric[1],
        seed=finished,  # another one, or a resumed search would repeat its first draws
        storage=optuna.storages.RDBStorage(f"sqlite:///{study}"),
        study_name=STUDY,
    )
    left = samples - finished
    _tune(trials, storage, listener, search=search, samples=left, metric=metric[0])


def _suggest(
    axes: Mapping[str, Sequence[Any]],
    cells: Mapping[tuple[Any, ...], list[int]],
    trial: optuna.Trial,
) -> dict[str, Any]:
    """Let Optuna choose a value per axis; return the repeats that have these values."""
    chosen = [trial.suggest_categorical(axis, list(values)) for axis, values in axes.items()]
    return {INDICES: cells[tuple(chosen)]}


def searched(study: Path) -> int:
    """Return how many configurations a search has finished."""
    if not study.exists():
        return 0
    known = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{study}")
    return len(known.get_trials(states=[optuna.trial.TrialState.COMPLETE]))


def _tune(
    trials: list[Trial],
    storage: Storage,
    listener: Listener,
    *,
    param_space: dict[str, Any] | None = None,
    search: OptunaSearch | None = None,
    samples: int = 1,
    metric: str = "miou",
    apart: bool = False,
) -> None:
    slots = {"cpu": 1.0} | ({"gpu": 1.0} if ray.cluster_resources().get("GPU") else {})
    scratch = ("work", f"tune-{uuid.uuid4().hex[:8]}")  # another sweep may use the same storage
    trainable = tune.with_parameters(
        _trial,
        experiments=[to_dict(trial.experiment) for trial in trials],
        storage_uri=storage.uri,
        metric=metric,
        apart=apart,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, slots),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=samples,
            max_concurrent_trials=concurrency(),
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=storage.address(*scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=2),
            callbacks=[_News(trials, listener)],
        ),
    )
    try:
        tuner.fit()
    finally:
        storage.delete(*scratch)


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
    metric: str,
    apart: bool,
) -> None:
    """The Tune function: one repeat of a grid's cell, or all repeats that a search asks for."""
    scores = []
    for index in config[INDICES]:
        place = f"{storage_uri}/apart-{index}" if apart else storage_uri
        found = _compute(index, experiments[index], place=place, storage_uri=storage_uri)
        if found is not None:
            scores.append(float(found[metric]))
    if scores:
        tune.report({SCORE: statistics.fmean(scores)})


def _compute(
    index: int, experiment_data: dict[str, Any], *, place: str, storage_uri: str
) -> dict[str, Any] | None:
    """Compute one experiment; return its scores, None after an exception, which is reported."""
    throttle = Throttle(REPORT_SECONDS)

    def news(**what: Any) -> None:
        # a searcher looks for its score in every report, also in those on the way
        tune.report({SCORE: math.nan, "index": index, **what})

    def report(progress: Progress) -> None:
        if throttle.ready():
            news(progress=vars(progress))

    try:
        experiment = from_dict(Experiment, experiment_data)
        dataset = opened(experiment.data, storage_uri)
        store = StageStore(Storage(place))
        record = compute(experiment, Run(store, dataset, device_here(), report))
    except Exception as error:  # reported with its traceback; the other trials go on
        news(failure=f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
        return None
    news(finished=True)
    scores: dict[str, Any] = record["metrics"]
    return scores


class _News(tune.Callback):
    """Passes reports on to the driver's listener."""

    def __init__(self, trials: list[Trial], listener: Listener) -> None:
        self.trials, self.listener = trials, listener
        self.over: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore them; we never do, and listeners hold files."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        if "index" not in result:
            return
        which = self.trials[result["index"]]
        if "progress" in result:
            self.listener.progress(which, Progress(**result["progress"]))
        elif str(which) not in self.over:  # a search may ask for a configuration again
            self.over.add(str(which))
            if "failure" in result:
                self.listener.failed(which, result["failure"])
            else:
                self.listener.finished(which)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        for index in trial.config[INDICES]:
            self.listener.failed(self.trials[index], f"the worker died\n\n{trial.get_error()}")
