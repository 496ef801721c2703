"""Run trials side by side under Ray Tune; single-device stages live inside the Tune function.

A trial asks the stage store first, so Tune's own state is a scratch pad: it may be lost at any
moment and is deleted at the end.
"""

from __future__ import annotations

import logging
import os
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import tune

from raysweep.config import from_dict, to_dict
from raysweep.experiment import Experiment
from raysweep.orchestration.datasets import opened
from raysweep.orchestration.lifeline import watch_ray
from raysweep.orchestration.pipeline import compute
from raysweep.orchestration.plan import Trial
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.terminal import Throttle, passing_on
from raysweep.orchestration.worker import Progress, Run

LOG = logging.getLogger(__name__)
REPORT_SECONDS = 2.0
INDEX = "index"


@dataclass(frozen=True)
class Listener:
    """What the driver does with news of trials."""

    progress: Callable[[Trial, Progress], None]
    finished: Callable[[Trial], None]
    failed: Callable[[Trial, str], None]


def start_ray(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at ``address``.

    When Ray dies, the process ends with exit code 1 and a message.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # the default yields to everything else
    # glibc gives large activations back to the system at every step: a fifth of a fit on a CPU
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32 - 1))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",  # not a cluster of somebody else's that happens to run here
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    watch_ray()


def run_trials(
    trials: list[Trial],
    *,
    storage: Storage,
    listener: Listener,
    gpus: int | None = None,
    apart: bool = False,
) -> None:
    """Compute all trials, as many at a time as the cluster has cores (or GPUs).

    Args:
        trials: in the order in which they are to start.
        storage: holds the stages and the data.
        listener: hears of progress and ends.
        gpus: see :class:`Slots`.
        apart: give every trial a store of its own; only to measure what sharing buys.
    """
    trainable = tune.with_parameters(
        _trial,
        experiments=[to_dict(trial.experiment) for trial in trials],
        storage_uri=storage.uri,
        apart=apart,
    )
    execute(
        trainable,
        storage=storage,
        callback=_News(trials, listener),
        gpus=gpus,
        param_space={INDEX: tune.grid_search(list(range(len(trials))))},
    )


def execute(
    trainable: Callable[..., None],
    *,
    storage: Storage,
    callback: tune.Callback,
    gpus: int | None = None,
    param_space: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Run a Tune function many times, one core or GPU each; Tune's own files are deleted.

    Args:
        trainable: the function.
        storage: where Tune may write while it runs.
        callback: hears of every report.
        gpus: see :class:`Slots`.
        param_space: what differs from run to run.
        options: of ``TuneConfig``.
    """
    slots = Slots.of_cluster(gpus)
    scratch = ("work", f"tune-{uuid.uuid4().hex[:8]}")  # another sweep may use the same storage
    tuner = tune.Tuner(
        tune.with_resources(trainable, slots.resources),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=slots.count,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
            **options,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=storage.address(*scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=2),
            callbacks=[callback],
        ),
    )
    try:
        tuner.fit()
    finally:
        storage.delete(*scratch)


@dataclass(frozen=True)
class Slots:
    """What a single-device trial takes, and how many run at a time.

    Attributes:
        resources: a core and, if there are any, a GPU.
        count: of trials side by side.
    """

    resources: dict[str, float]
    count: int

    @classmethod
    def of_cluster(cls, gpus: int | None) -> Slots:
        """Return the slots of the cluster.

        Args:
            gpus: GPUs to count on; those that are up if left out. An autoscaler starts machines
                only when something waits for them.
        """
        up = ray.cluster_resources()
        count = int(up.get("GPU", 0)) if gpus is None else gpus
        if count:
            return cls({"cpu": 1.0, "gpu": 1.0}, count)
        return cls({"cpu": 1.0}, max(1, int(up.get("CPU", 1))))


def device_here() -> torch.device:
    """Return the accelerator given to this process, else the CPU with one thread.

    One thread per worker: side by side they are faster than one worker with many, and results do
    not depend on the machine's number of cores.
    """
    torch.set_num_threads(1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _trial(
    config: Mapping[str, Any], *, experiments: list[dict[str, Any]], storage_uri: str, apart: bool
) -> None:
    """The Tune function: one repeat of one cell."""
    index = config[INDEX]
    place = Storage(storage_uri).address(f"apart-{index}") if apart else storage_uri
    throttle = Throttle(REPORT_SECONDS)

    def report(progress: Progress) -> None:
        if throttle.ready():
            tune.report({INDEX: index, "progress": vars(progress)})

    def warn(text: str) -> None:
        tune.report({INDEX: index, "warning": text})

    try:
        experiment = from_dict(Experiment, experiments[index])
        dataset = opened(experiment.data, storage_uri)
        with passing_on(warn):
            compute(experiment, Run(StageStore(Storage(place)), dataset, device_here(), report))
    except Exception as error:  # reported with its traceback; the other trials go on
        tune.report({INDEX: index, "failure": failure_text(error)})
    else:
        tune.report({INDEX: index, "finished": True})


def failure_text(error: Exception) -> str:
    """Return an exception and its traceback, the message first."""
    return f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"


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
        if INDEX not in result:
            return
        which = self.trials[result[INDEX]]
        if "progress" in result:
            self.listener.progress(which, Progress(**result["progress"]))
        elif "failure" in result:
            self.listener.failed(which, result["failure"])
        elif "finished" in result:
            self.listener.finished(which)
        elif "warning" in result:
            LOG.warning("%s: %s", which, result["warning"])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        which = self.trials[trial.config[INDEX]]
        LOG.warning("%s: its process died; it goes on from its last checkpoint", which)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        message = f"the worker died\n\n{trial.get_error()}"
        self.listener.failed(self.trials[trial.config[INDEX]], message)
