"""Run trials side by side under Ray Tune; single-device stages live inside the Tune function.

A trial asks the stage store first, so Tune's own state is a scratch pad: it may be lost at any
moment and is deleted at the end.
"""

from __future__ import annotations

import gc
import logging
import os
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune

from raysweep.config import from_dict, to_dict
from raysweep.experiment import Experiment
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.memory import (
    ABOUT_HOST,
    OutOfMemoryError,
    Thrift,
    explain,
    killed,
)
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Progress, Run
from raysweep.orchestration.on_ray.lifeline import watch_ray
from raysweep.orchestration.on_ray.news import INDEX, Listener, News, Running
from raysweep.orchestration.on_ray.slots import WHOLE_GPUS, Gpus, Slots, device_here
from raysweep.orchestration.planning.plan import Trial
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.terminal import Throttle, passing_on

LOG = logging.getLogger(__name__)
REPORT_SECONDS = 2.0


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
    gpus: Gpus = WHOLE_GPUS,
    apart: bool = False,
) -> None:
    """Compute all trials, as many at a time as the cluster has cores (or GPUs).

    Args:
        trials: in the order in which they are to start.
        storage: holds the stages and the data.
        listener: hears of progress and ends.
        gpus: what single-device trials take of GPUs.
        apart: give every trial a store of its own; only to measure what sharing buys.
    """
    trainable = tune.with_parameters(
        _trial,
        experiments=[to_dict(trial.experiment) for trial in trials],
        storage_uri=storage.uri,
        apart=apart,
    )
    news, left = News(trials, listener), list(range(len(trials)))
    at_once = Slots.of_cluster(gpus).count
    while left:
        victims = execute(
            trainable,
            storage=storage,
            callback=news,
            gpus=gpus,
            at_once=at_once,
            param_space={INDEX: tune.grid_search(left)},
        )
        for index in {victim[INDEX] for victim in victims or ()} - news.over:
            _spare(index, trials[index], storage, news)
        left = [index for index in left if index not in news.over]
        if left and at_once == 1 and not victims:  # nobody else's memory is left to wait for
            news.give_up(left, OutOfMemoryError(f"{ABOUT_HOST}, with one trial at a time"))
            return
        at_once = fewer(at_once) if left else at_once


def fewer(at_once: int) -> int:
    """Return how many trials to run at a time after Ray has ended some for want of memory."""
    found = max(1, at_once // 2)
    if found < at_once:
        LOG.warning("the memory of a machine was nearly used up; on with %d at a time", found)
    return found


def _spare(index: int, trial: Trial, storage: Storage, news: News) -> None:
    """See to it that a trial that was killed for want of memory needs less, or fails."""
    store = StageStore(storage)
    stage = next(stage for stage in trial.chain if not store.done(stage))
    thrift = Thrift(storage, stage)
    if thrift.lower():
        LOG.warning("%s: %s; once more in smaller micro-batches", trial, ABOUT_HOST)
    else:
        news.failed(index, explain(stage, thrift.parts(), "memory", ABOUT_HOST))
        thrift.forget()


def execute(
    trainable: Callable[..., None],
    *,
    storage: Storage,
    callback: tune.Callback,
    gpus: Gpus = WHOLE_GPUS,
    at_once: int | None = None,
    param_space: dict[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]] | None:
    """Run a Tune function many times, one core or GPU each; Tune's own files are deleted.

    Args:
        trainable: the function.
        storage: where Tune may write while it runs.
        callback: hears of every report.
        gpus: what single-device trials take of GPUs.
        at_once: runs at a time, at most; as many as there is room for if left out.
        param_space: what differs from run to run.
        options: of ``TuneConfig``.

    Returns:
        None when all is over. Tune ends the whole run when Ray kills one process for want of
        memory: then the parameters of those whose processes these were.
    """
    slots, running = Slots.of_cluster(gpus), Running()
    scratch = ("work", f"tune-{uuid.uuid4().hex[:8]}")  # another sweep may use the same storage
    tuner = tune.Tuner(
        tune.with_resources(trainable, slots.resources),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=min(slots.count, at_once or slots.count),
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
            callbacks=[callback, running],
        ),
    )
    victims: list[str] | None = None
    try:
        tuner.fit()
    except RuntimeError as error:
        victims = killed(error)
        if victims is None:
            raise
    finally:
        storage.delete(*scratch)
    if victims is None:
        return None
    del tuner
    gc.collect()  # its processes hold the cores until then
    return running.parameters_of(victims)


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
