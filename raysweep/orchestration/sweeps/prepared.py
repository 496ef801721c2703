"""A sweep from flags to a checked plan: nothing is started here."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from raysweep.config import ConfigError, digest, override
from raysweep.data.dataset import DatasetInfo
from raysweep.experiment import Experiment
from raysweep.orchestration.cli import checked, experiment_from
from raysweep.orchestration.on_ray.elastic import Workers, pretrain_counts
from raysweep.orchestration.on_ray.slots import Gpus
from raysweep.orchestration.planning.plan import Cell, Plan, SearchSpace, Trial, make_plan
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.outcome import log_name
from raysweep.orchestration.sweeps.search import Search, best_cells

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
        left_out: why configurations of the page are not in the plan, a sentence each.
    """

    name: str
    space: SearchSpace
    preset: str
    workers: Workers
    gpus: Gpus
    address: str | None
    base: Experiment
    info: DatasetInfo
    plan: Plan
    repeats: int
    store: StageStore
    search: Search | None = None
    failures: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

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


def prepare(title: str, space: SearchSpace, options: argparse.Namespace) -> Sweep:
    """Check all input and expand the search space; touch nothing but the storage directory.

    Raises:
        ValueError: names the flag or setting, its value, what is allowed and what to do.
    """
    if options.prices is not None and not options.dry_run:
        raise ConfigError(f"--prices {options.prices}: only with --dry-run, which shows the cost")
    base = experiment_from(options, presets=space.BASE)
    storage = Storage(options.storage)
    info = checked(base)
    storage.check_writable()
    repeats = options.repeats or space.REPEATS[options.preset]
    cells = space.cells(options.preset)
    if options.search == "optuna":
        cells = [cell for cell in cells if cell.row in space.BASELINES]
    cells, left_out = _with_enough_labels(cells, info)
    plan = make_plan(space, base, cells=cells, repeats=repeats, fingerprint=info.fingerprint)
    if options.workers.several:
        for _, trained in (found for trial in plan.trials for found in trainings(trial)):
            pretrain_counts(trained.pretrain, options.workers)
    name = f"{title}-{options.preset}-{info.name}"
    plain = override(space.BASE[options.preset](), {"data.source": base.data.source})
    if base != plain:  # settings were changed: a directory of its own
        name += f"-{digest(base, length=6)}"
    return Sweep(
        name=name,
        space=space,
        preset=options.preset,
        workers=options.workers,
        gpus=Gpus(options.gpus, options.gpus_per_trial),
        address=options.address,
        base=base,
        info=info,
        plan=plan,
        repeats=repeats,
        store=StageStore(storage),
        left_out=left_out,
        search=_search_of(space, base, options, repeats, storage.local(name, "optuna.db")),
    )


def trainings(trial: Trial) -> list[tuple[Stage, Experiment]]:
    """Return the trainings of representations behind a trial, its segmentor's trunk among them.

    Returns:
        Stage, and an experiment whose ``pretrain`` is what the stage trains.
    """
    experiment, chain = trial.experiment, trial.chain
    found = [(chain.pretrain, experiment)]
    if chain.trunk is not None and experiment.trunk is not None:
        found.append((chain.trunk, Experiment(data=experiment.data, pretrain=experiment.trunk)))
    return [(stage, trained) for stage, trained in found if trained.pretrain.learnt]


def _with_enough_labels(cells: list[Cell], info: DatasetInfo) -> tuple[list[Cell], tuple[str, ...]]:
    """Leave out configurations that ask for more labelled images than the dataset has.

    Returns:
        The others, and a sentence for each number of images that is not there.
    """
    available = info.counts["train"]
    wanted = [int(cell.changes.get("data.shots", 0)) for cell in cells]
    missing = sorted({shots for shots in wanted if shots > available})
    sentences = tuple(
        f"left out: {shots} labelled images; {info.name} has {available} to train on"
        for shots in missing
    )
    kept = [cell for cell, shots in zip(cells, wanted, strict=True) if shots <= available]
    return kept, sentences


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
