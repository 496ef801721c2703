"""A search over configurations, guided by Optuna, unpromising ones stopped early by ASHA.

Configurations are compared by their mIoU on the validation split. The study is a database beside
the table: a killed search is taken up where it was.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from raysweep.config import from_dict, override, to_dict
from raysweep.experiment import Experiment
from raysweep.fewshot.projector import candidate_steps
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.memory import ABOUT_HOST
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import WHOLE_GPUS, Gpus, Slots, device_here
from raysweep.orchestration.on_ray.tune import execute, failure_text, fewer
from raysweep.orchestration.planning.plan import Cell, Changes, SearchSpace
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage

STUDY = "sweep"
SCORE, STEP, CHANGES, REPEAT = "score", "step", "changes", "repeat"
REDUCTION = 3
"""ASHA lets the best of so many go on."""


@dataclass(frozen=True)
class News:
    """What the driver does with news of a search: which configuration, which repeat."""

    finished: Callable[[Changes, int], None]
    failed: Callable[[Changes, int, str], None]


@dataclass(frozen=True)
class Search:
    """A search, and where its study is.

    Attributes:
        space: how a configuration is chosen.
        preset: passed on to it.
        base: what all configurations share.
        repeats: of each configuration; a score is their mean.
        samples: configurations to try, those of an earlier call included.
        study: path of the database.
    """

    space: SearchSpace
    preset: str
    base: Experiment
    repeats: int
    samples: int
    study: Path

    def tried(self) -> int:
        """Return how many configurations have been tried, to the end or stopped early."""
        return len(self._trials())

    def found(self) -> list[Changes]:
        """Return the configurations tried, the best first and those that failed last.

        One that was stopped early has its place by the score that it had then.
        """
        known, mode = self._trials(), self.space.METRIC[1]

        def rank(trial: optuna.trial.FrozenTrial) -> tuple[float, int]:
            value = worst(mode) if trial.value is None else trial.value
            return (-value if mode == "max" else value), trial.number

        known.sort(key=rank)
        return [
            self.space.suggest(self.preset, optuna.trial.FixedTrial(trial.params))
            for trial in known
        ]

    def run(self, *, storage: Storage, news: News, gpus: Gpus = WHOLE_GPUS) -> None:
        """Try what is missing."""
        at_once = Slots.of_cluster(gpus).count
        for _ in range(self.samples):  # configurations may be killed for want of memory
            tried = self.tried()
            if tried >= self.samples:
                return
            victims = self._try_more(tried, storage=storage, news=news, gpus=gpus, at_once=at_once)
            if not victims:
                return
            for victim in victims:
                news.failed(victim[CHANGES], 0, f"{ABOUT_HOST}; it needs a larger machine")
            at_once = fewer(at_once)

    def _try_more(
        self, tried: int, *, storage: Storage, news: News, gpus: Gpus, at_once: int
    ) -> list[dict[str, Any]]:
        """Try the rest; return the parameters of those whose processes Ray has killed."""
        metric, mode = self.space.METRIC
        searcher = OptunaSearch(
            functools.partial(_suggest, self.space.suggest, self.preset),
            metric=SCORE,
            mode=mode,
            seed=tried,  # another one, or a resumed search would repeat its first draws
            storage=optuna.storages.RDBStorage(f"sqlite:///{self.study}"),
            study_name=STUDY,
        )
        candidates = candidate_steps(self.base.fit)
        asha = AsyncHyperBandScheduler(
            time_attr=STEP,
            metric=SCORE,
            mode=mode,
            max_t=candidates[-1] + self.repeats,  # the end of a repeat counts as a step
            grace_period=max(1, candidates[0]),
            reduction_factor=REDUCTION,
        )
        trainable = tune.with_parameters(
            _try,
            base=to_dict(self.base),
            repeats=[dict(self.space.repeat(index)) for index in range(self.repeats)],
            storage_uri=storage.uri,
            metric=metric,
            failed=worst(mode),
        )
        victims = execute(
            trainable,
            storage=storage,
            callback=_Reports(news),
            gpus=gpus,
            at_once=at_once,
            search_alg=searcher,
            scheduler=asha,
            num_samples=self.samples - tried,
        )
        return victims or []

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        if not self.study.exists():
            return []
        known = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{self.study}")
        over = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
        return known.get_trials(states=over)


def worst(mode: str) -> float:
    """Return the score of a configuration that failed: any other is better."""
    return -math.inf if mode == "max" else math.inf


def best_cells(search: Search, *, most: int, done: Callable[[Cell], bool]) -> list[Cell]:
    """Return the cells of the best configurations whose repeats are all done, the best first."""
    cells: dict[tuple[str, str], Cell] = {}
    for changes in search.found():
        cell = search.space.place(search.preset, changes)
        if len(cells) < most and done(cell):
            cells.setdefault((cell.row, cell.column), cell)
    return list(cells.values())


def _suggest(
    suggest: Callable[[str, Any], Changes], preset: str, trial: optuna.Trial
) -> dict[str, Any]:
    return {CHANGES: dict(suggest(preset, trial))}


def _try(
    config: Mapping[str, Any],
    *,
    base: dict[str, Any],
    repeats: Sequence[Changes],
    storage_uri: str,
    metric: str,
    failed: float,
) -> None:
    """The Tune function: all repeats of one configuration, the first one watched by ASHA."""
    scores: list[float] = []
    for index, more in enumerate(repeats):
        where = {CHANGES: config[CHANGES], REPEAT: index}
        try:
            experiment = override(from_dict(Experiment, base), {**config[CHANGES], **more})
            dataset = opened(experiment.data, storage_uri)
            store = StageStore(Storage(storage_uri))
            watched = _report_on_the_way if index == 0 else None
            run_with = Run(store, dataset, device_here(), lambda _: None, watched)
            scores.append(float(compute(experiment, run_with)["metrics"][metric]))
        except Exception as error:  # the other configurations go on
            tune.report({**where, "failure": failure_text(error), SCORE: failed, STEP: 0})
            return
        end = experiment.fit.steps + index + 1
        tune.report({**where, SCORE: statistics.fmean(scores), STEP: end})


def _report_on_the_way(step: int, score: float) -> None:
    tune.report({SCORE: score, STEP: step})


class _Reports(tune.Callback):
    """Passes reports on to the driver."""

    def __init__(self, news: News) -> None:
        self.news = news

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore them; we never do, and listeners hold files."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        if CHANGES not in result:
            return
        if "failure" in result:
            self.news.failed(result[CHANGES], result[REPEAT], result["failure"])
        else:
            self.news.finished(result[CHANGES], result[REPEAT])
