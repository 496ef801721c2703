"""What a sweep will do: its trials, the stages they share, what is done, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

from raysweep.config import ConfigError, digest, override
from raysweep.evaluate.papers import PaperTable
from raysweep.experiment import Experiment
from raysweep.orchestration.compute.chain import Chain, chain_of
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.store.stages import Stage, StageStore

Changes = Mapping[str, Any]
"""Dotted settings to values."""
Drawing = Literal["heat map", "lines"]
"""How a table is drawn; lines run over columns whose labels are numbers."""


class Cell(NamedTuple):
    """One configuration and its place in the table.

    Attributes:
        row: label of its row.
        column: label of its column.
        changes: what is changed of the base.
        paper: the cell of a paper's table whose part it plays, if there is one; begins with the
            table's id, e.g. ``ganorcon_appE[segmentor=256, moco=96]``.
    """

    row: str
    column: str
    changes: Changes
    paper: str | None = None


class SearchSpace(Protocol):
    """A page of Python under ``search_spaces/``.

    Attributes:
        BASE: preset to the settings that all configurations share.
        METRIC: name of a score, and ``max`` or ``min``; what ``--search optuna`` goes by.
        BASELINES: labels of the rows that are not swept, to the method behind them.
        REPEATS: preset to the default number of repeats.
        FIGURE: how the table is drawn.
        PAPERS: the printed tables that are shown beside.
        CURVES: labels of the rows whose candidates are drawn over steps.
        ROW_AXIS: name of what runs down the table.
        COLUMN_AXIS: name of what runs across.
    """

    BASE: dict[str, Callable[[], Experiment]]
    METRIC: tuple[str, str]
    BASELINES: dict[str, str]
    REPEATS: dict[str, int]
    FIGURE: Drawing
    ROW_AXIS: str
    COLUMN_AXIS: str

    @property
    def PAPERS(self) -> tuple[PaperTable, ...]:  # noqa: N802
        """The printed tables; the first one's id goes with cells that name none."""

    @property
    def CURVES(self) -> tuple[str, ...]:  # noqa: N802
        """Labels of rows; those that a plan does not have are passed over."""

    @property
    def cells(self) -> Callable[[str], list[Cell]]:
        """Preset to all configurations of the grid, in the order of the table."""

    @property
    def suggest(self) -> Callable[[str, Any], Changes]:
        """Preset and an Optuna trial to the configuration that it chooses."""

    @property
    def place(self) -> Callable[[str, Changes], Cell]:
        """Preset and a configuration that was chosen to its place in the table."""

    @property
    def repeat(self) -> Callable[[int], Changes]:
        """Index of a repeat to the settings that tell it from the others."""


def product(domains: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    """Return all combinations of Tune's ``grid_search`` domains, the last one varying fastest."""
    values = [domain["grid_search"] for domain in domains.values()]
    return [dict(zip(domains, chosen, strict=True)) for chosen in itertools.product(*values)]


@dataclass(frozen=True)
class Trial:
    """One repeat of one configuration.

    Attributes:
        cell: the configuration.
        axes: the swept settings, the same keys on every trial.
        repeat: index of the repeat.
        experiment: everything that determines the result.
        chain: its stages.
        label: what the user reads.
    """

    cell: Cell
    axes: Mapping[str, Any]
    repeat: int
    experiment: Experiment
    chain: Chain
    label: str

    @property
    def row(self) -> str:
        """Label of the table's row."""
        return self.cell.row

    @property
    def column(self) -> str:
        """Label of the table's column."""
        return self.cell.column

    @property
    def keys(self) -> dict[str, str]:
        """Stage to key; the searches in a generator are told apart by their split."""
        return {
            f"{stage.name} {stage.config['split']}" if "split" in stage.config else stage.name: (
                stage.key
            )
            for stage in self.chain
        }

    @property
    def configuration(self) -> tuple[str, str]:
        """What the repeats of one cell have in common."""
        return (self.row, self.column)

    def __str__(self) -> str:
        return f"{self.label}, repeat {self.repeat}"


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, in table order."""

    trials: tuple[Trial, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """Labels of the table's rows, top to bottom."""
        return tuple(dict.fromkeys(trial.row for trial in self.trials))

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of the table's columns, left to right."""
        return tuple(dict.fromkeys(trial.column for trial in self.trials))

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


def make_trial(
    space: SearchSpace, base: Experiment, cell: Cell, *, repeat: int, fingerprint: str
) -> Trial:
    """Return one repeat of a configuration; its axes are what the cell changes."""
    experiment = override(base, {**cell.changes, **space.repeat(repeat)})
    return Trial(
        cell=cell,
        axes={key: _plain(value) for key, value in cell.changes.items()},
        repeat=repeat,
        experiment=experiment,
        chain=chain_of(experiment, fingerprint),
        label=f"{cell.row}, {space.COLUMN_AXIS} {cell.column}",
    )


def make_plan(
    space: SearchSpace,
    base: Experiment,
    *,
    cells: Sequence[Cell],
    repeats: int,
    fingerprint: str,
) -> Plan:
    """Expand configurations into trials.

    Raises:
        ConfigError: a combination is refused; the message names the setting. Or lines are to be
            drawn over columns that are not numbers.
    """
    if space.FIGURE == "lines":
        _check_numeric(dict.fromkeys(cell.column for cell in cells))
    trials = [
        make_trial(space, base, cell, repeat=repeat, fingerprint=fingerprint)
        for cell in cells
        for repeat in range(repeats)
    ]
    axes = {key: value for trial in trials for key, value in trial.axes.items()}
    unset = {key: "none" if isinstance(value, str) else 0 for key, value in axes.items()}
    return Plan(tuple(replace(trial, axes=unset | dict(trial.axes)) for trial in trials))


def _check_numeric(columns: Iterable[str]) -> None:
    from raysweep.evaluate.line_figures import number_of  # workers never draw

    for column in columns:
        try:
            number_of(column)
        except ValueError as error:
            raise ConfigError(f"FIGURE = 'lines': {error}; set FIGURE = 'heat map'") from None


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)


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
