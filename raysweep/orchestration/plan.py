"""What a sweep will do: its trials, the stages they share, what is done, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from raysweep.config import digest, override
from raysweep.evaluate.papers import PAPER_TABLES, PaperTable, paper_cell
from raysweep.orchestration.chain import Chain, chain_of
from raysweep.orchestration.estimate import Clock
from raysweep.orchestration.stages import Stage, StageStore
from raysweep.presets import Experiment


class SearchSpace(Protocol):
    """A page of Python under ``search_spaces/``."""

    BASE: dict[str, Callable[[], Experiment]]
    SPACE: dict[str, dict[str, Any]]
    ROWS: str
    COLUMNS: str
    METRIC: tuple[str, str]
    BASELINES: dict[str, dict[str, Any]]
    REPEATS: dict[str, int]
    PAPER_TABLE: str
    PAPER_AXES: dict[str, str]

    @property
    def repeat(self) -> Callable[[int], dict[str, Any]]:
        """Index of a repeat to the settings that tell it from the others."""


@dataclass(frozen=True)
class Trial:
    """One repeat of one configuration.

    Attributes:
        row: label of the table's row.
        column: value of the table's column.
        axes: the swept settings, the same keys on every trial; 0 where an axis does not apply.
        repeat: index of the repeat.
        experiment: everything that determines the result.
        chain: its stages.
    """

    row: str
    column: int
    axes: Mapping[str, Any]
    repeat: int
    experiment: Experiment
    chain: Chain

    @property
    def configuration(self) -> tuple[str, int]:
        """What the repeats of one cell have in common."""
        return (self.row, self.column)

    def __str__(self) -> str:
        return f"{self.row}, segmentor {self.column} px, repeat {self.repeat}"


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, in table order."""

    trials: tuple[Trial, ...]
    row_order: tuple[str, ...]
    axes: Mapping[str, tuple[Any, ...]]
    paper: PaperTable
    paper_axes: Mapping[str, str]

    def paper_cell(self, trial: Trial) -> str | None:
        """Name the cell of the paper's table that plays the part of a trial's, if one does."""
        ranks = {}
        for paper_axis, axis in self.paper_axes.items():
            if trial.axes[axis] not in self.axes[axis]:
                return None
            ranks[paper_axis] = self.axes[axis].index(trial.axes[axis])
        return paper_cell(self.paper, ranks)

    @property
    def key(self) -> str:
        """Hash of all the results that the sweep asks for."""
        return digest([trial.chain.evaluate.key for trial in self.trials])

    def stages(self) -> dict[Stage, list[Trial]]:
        """Return every distinct stage with the trials that need it."""
        found: dict[Stage, list[Trial]] = {}
        for trial in self.trials:
            for stage in trial.chain:
                found.setdefault(stage, []).append(trial)
        return found

    def pending(self, store: StageStore) -> list[Trial]:
        """Return the trials without a result."""
        return [trial for trial in self.trials if not store.done(trial.chain.evaluate)]


def make_plan(
    space: SearchSpace, base: Experiment, *, preset: str, repeats: int, fingerprint: str
) -> Plan:
    """Expand a search space into trials.

    Raises:
        ConfigError: a combination is refused; the message names the setting.
    """
    axes = {key: domain["grid_search"] for key, domain in space.SPACE[preset].items()}
    columns = tuple(axes[space.COLUMNS])
    configurations: list[tuple[str, dict[str, Any]]] = []
    for label, changes in space.BASELINES.items():
        configurations += [(label, changes | {space.COLUMNS: column}) for column in columns]
    for values in itertools.product(*axes.values()):
        changes = dict(zip(axes, values, strict=True))
        configurations.append((f"{changes[space.ROWS]} px", changes))
    trials = []
    for label, changes in configurations:
        for index in range(repeats):
            experiment = override(base, changes | space.repeat(index))
            swept = {key: changes.get(key, 0) for key in axes}
            swept["pretrain.method"] = experiment.pretrain.method
            trials.append(
                Trial(
                    row=label,
                    column=changes[space.COLUMNS],
                    axes=swept,
                    repeat=index,
                    experiment=experiment,
                    chain=chain_of(experiment, fingerprint),
                )
            )
    rows = tuple(dict.fromkeys(label for label, _ in configurations))
    return Plan(
        trials=tuple(trials),
        row_order=rows,
        axes={key: tuple(values) for key, values in axes.items()},
        paper=PAPER_TABLES[space.PAPER_TABLE],
        paper_axes=space.PAPER_AXES,
    )


def in_order(trials: list[Trial], clock: Clock, store: StageStore) -> list[Trial]:
    """Order trials so that workers neither wait for a shared stage nor idle at the end.

    First one trial per missing pretraining, longest first; then the trials that need none of
    them; then the rest, those of the shortest pretraining first. Long fits go before short ones.
    """
    by_fit = sorted(trials, key=lambda trial: -clock.seconds(trial, "fit"))
    missing = {
        trial.chain.pretrain.key
        for trial in trials
        if trial.experiment.pretrain.learnt and not store.done(trial.chain.pretrain)
    }
    leaders: dict[str, Trial] = {}
    for trial in by_fit:
        if trial.chain.pretrain.key in missing:
            leaders.setdefault(trial.chain.pretrain.key, trial)
    first = sorted(leaders.values(), key=lambda trial: -clock.seconds(trial, "pretrain"))
    free = [trial for trial in by_fit if trial.chain.pretrain.key not in missing]
    chosen = {id(trial) for trial in (*first, *free)}
    followers = [trial for trial in by_fit if id(trial) not in chosen]
    followers.sort(key=lambda trial: clock.seconds(trial, "pretrain"))
    return [*first, *free, *followers]
