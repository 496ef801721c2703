"""Two-axis result tables: mean, standard deviation and number of repeats of every cell.

The standard deviation is the sample standard deviation over repeats (``ddof=1``). One repeat has
none: it is printed as ``-``, never as ``0.000``, which would claim a certainty nobody measured.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import rich.box
import rich.table
import rich.text

MISSING = "-"
TERMINAL_COLUMNS = 80
BETWEEN_COLUMNS = 2  # one blank of padding, one of divider


@dataclass(frozen=True)
class Cell:
    """The finished repeats of one configuration; none of them when it failed or was not run.

    Attributes:
        repeats: which repeats finished, ascending.
        values: their scores, in the same order.
    """

    repeats: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of finished repeats."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over repeats, independent of their order; nan without any."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation over repeats (``ddof=1``); nan for fewer than two."""
        return statistics.stdev(self.values) if self.n > 1 else math.nan


@dataclass(frozen=True)
class Table:
    """A metric over two swept axes.

    Attributes:
        title: one line that says what was swept.
        value: name of the metric, e.g. ``miou``; larger is better.
        row_axis: name of the axis that runs down.
        column_axis: name of the axis that runs across.
        rows: row labels, top to bottom.
        columns: column labels, left to right.
        cells: ``cells[i][j]`` belongs to row ``i`` and column ``j``.
    """

    title: str
    value: str
    row_axis: str
    column_axis: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]


def pivot(
    frame: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    value: str,
    title: str,
    row_order: Sequence[object],
    column_order: Sequence[object],
    repeat: str = "repeat",
) -> Table:
    """Arrange one-row-per-repeat results as a table.

    The orders are given, not found, so that a table does not depend on which trial finished
    first and a configuration that never finished keeps its place.

    Args:
        frame: one row per repeat; a nan value is a repeat that failed.
        rows: column of ``frame`` that runs down the table.
        columns: column of ``frame`` that runs across it.
        value: column of ``frame`` with the score.
        title: one line that says what was swept.
        row_order: every value of ``rows`` to show, top to bottom.
        column_order: every value of ``columns`` to show, left to right.
        repeat: column of ``frame`` with the integer that tells repeats apart.

    Raises:
        ValueError: a column is missing, an axis holds a label outside its order, or one repeat
            of a cell appears twice.
    """
    _check_columns(frame, (rows, columns, value, repeat))
    row_labels, column_labels = _labels(row_order), _labels(column_order)
    _check_labels(frame[rows], axis=rows, labels=row_labels)
    _check_labels(frame[columns], axis=columns, labels=column_labels)
    scores = _scores(frame, rows=rows, columns=columns, value=value, repeat=repeat)
    cells = tuple(tuple(_cell(scores.get((r, c), {})) for c in column_labels) for r in row_labels)
    return Table(title, value, rows, columns, row_labels, column_labels, cells)


def best(table: Table) -> dict[str, str]:
    """Return the row with the highest mean for each column that has any result.

    The first of equal rows wins.
    """
    winners: dict[str, str] = {}
    for j, column in enumerate(table.columns):
        means = {row: table.cells[i][j].mean for i, row in enumerate(table.rows)}
        finished = {row: mean for row, mean in means.items() if not math.isnan(mean)}
        if finished:
            winners[column] = max(finished, key=finished.__getitem__)
    return winners


def best_cell(table: Table) -> tuple[str, str] | None:
    """Return ``(row, column)`` of the highest mean of the whole table; None if it is empty."""
    finished = {
        (row, column): table.cells[i][j].mean
        for i, row in enumerate(table.rows)
        for j, column in enumerate(table.columns)
        if table.cells[i][j].n
    }
    return max(finished, key=finished.__getitem__) if finished else None


def to_markdown(table: Table) -> str:
    """Return the table as Markdown, cells ``mean +- std (n)``, the best of each column bold."""
    winners = best(table)
    lines = [f"**{table.title}**", "", caption(table), ""]
    lines.append(f"| {table.row_axis} \\ {table.column_axis} | {' | '.join(table.columns)} |")
    lines.append("|---" + "|---:" * len(table.columns) + "|")
    for row, cells in zip(table.rows, table.cells, strict=True):
        texts = [
            f"**{cell_text(cell)}**" if winners.get(column) == row else cell_text(cell)
            for column, cell in zip(table.columns, cells, strict=True)
        ]
        lines.append(f"| {row} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Return one line per cell: labels, mean, std, n and every repeat's score.

    Numbers are written in full, so that equal files mean equal results bit for bit. What does
    not exist (the std of one repeat, a failed repeat) is an empty field.
    """
    repeats = sorted({index for line in table.cells for cell in line for index in cell.repeats})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [f"repeat_{index}" for index in repeats]
    writer.writerow([table.row_axis, table.column_axis, "mean", "std", "n", *names])
    for row, cells in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            scores = dict(zip(cell.repeats, cell.values, strict=True))
            numbers = [scores.get(index, math.nan) for index in repeats]
            summary = [_full(cell.mean), _full(cell.std), cell.n]
            writer.writerow([row, column, *summary, *map(_full, numbers)])
    return stream.getvalue()


def render(table: Table) -> rich.table.Table:
    """Return the table for a terminal of 80 columns, the best of each column bold.

    Cells are one line, ``mean +- std (n)``, or two where the line would not fit. A table too wide
    even for that is folded: no digit is lost.
    """
    corner = f"{table.row_axis} \\\n{table.column_axis}"
    longest = max(len(cell_text(cell)) for line in table.cells for cell in line)
    labels = max(len(label) for label in (*corner.split("\n"), *table.rows))
    fits = labels + len(table.columns) * (longest + BETWEEN_COLUMNS) <= TERMINAL_COLUMNS
    screen = rich.table.Table(
        title=table.title,
        caption=caption(table),
        title_justify="left",
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        leading=0 if fits else 1,
    )
    screen.add_column(corner, overflow="fold")
    for column in table.columns:
        screen.add_column(column, justify="right", overflow="fold")
    winners = best(table)
    for row, cells in zip(table.rows, table.cells, strict=True):
        texts = [
            rich.text.Text(
                cell_text(cell) if fits else _two_lines(cell),
                style="bold" if winners.get(column) == row else "",
            )
            for column, cell in zip(table.columns, cells, strict=True)
        ]
        screen.add_row(row, *texts)
    return screen


def caption(table: Table) -> str:
    """Return the sentence that explains the numbers in a cell."""
    return f"{table.value}: mean +- sample standard deviation (number of repeats)"


def cell_text(cell: Cell) -> str:
    """Return ``mean +- std (n)``; ``-`` for what does not exist."""
    if not cell.n:
        return MISSING
    spread = MISSING if cell.n < 2 else f"{cell.std:.3f}"
    return f"{cell.mean:.3f} +- {spread} ({cell.n})"


def _two_lines(cell: Cell) -> str:
    mean, _, spread = cell_text(cell).partition(" +- ")
    return f"{mean} ({cell.n})\n+- {spread.split()[0]}" if spread else mean


def _labels(order: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(label) for label in order)


def _check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if name not in frame.columns:
            known = ", ".join(map(str, frame.columns))
            raise ValueError(f"results have no column {name!r}; they have: {known}")


def _check_labels(column: pd.Series, *, axis: str, labels: tuple[str, ...]) -> None:
    unknown = sorted(set(column.map(str)) - set(labels))
    if unknown:
        raise ValueError(f"{axis} = {unknown[0]!r} is not in its order: {', '.join(labels)}")


def _scores(
    frame: pd.DataFrame, *, rows: str, columns: str, value: str, repeat: str
) -> dict[tuple[str, str], dict[int, float]]:
    """Return repeat -> score for every (row, column) that was tried."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for record in frame.to_dict("records"):
        row, column = str(record[rows]), str(record[columns])
        index, score = int(record[repeat]), float(record[value])
        cell = scores.setdefault((row, column), {})
        if index in cell:
            raise ValueError(
                f"{rows} = {row}, {columns} = {column}: {repeat} = {index} appears twice; "
                "each repeat may count once"
            )
        cell[index] = score
    return scores


def _cell(scores: dict[int, float]) -> Cell:
    finished = sorted((index, score) for index, score in scores.items() if not math.isnan(score))
    return Cell(tuple(index for index, _ in finished), tuple(score for _, score in finished))


def _full(number: float) -> str:
    return "" if math.isnan(number) else repr(float(number))
