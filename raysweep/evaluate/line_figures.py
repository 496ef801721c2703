"""Lines: the table over a numeric axis, and what the candidates of a row reached while training."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysweep.evaluate.figures import (
    DOTS_PER_INCH,
    INK,
    check_baselines,
    label_lines,
    line_style,
)
from raysweep.evaluate.tables import Table

LEAST_SPAN = 0.05
"""Of the vertical axis: smaller differences are not blown up."""

Curve = Mapping[int, float]
"""Step to mIoU of the candidates of one repeat."""
Curves = Mapping[tuple[str, str], Sequence[Curve]]
"""``(row, column)`` to the curves of its repeats."""


def number_of(column: str) -> float:
    """Return where a column stands on a numeric axis.

    Raises:
        ValueError: its label is not a finite number.
    """
    try:
        number = float(column)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"column {column!r} is not a number, which an axis needs") from None
    return number


def line_figure(table: Table, path: Path, *, baselines: Collection[str]) -> Path:
    """Draw a line per row over the columns, with the standard deviation as error bars.

    The axis is logarithmic (base 2) if that spaces the columns more evenly.

    Args:
        table: what to draw; column labels are numbers.
        path: where the PNG goes; its folder must exist.
        baselines: rows that were not swept: dashed.

    Returns:
        ``path``.

    Raises:
        ValueError: a column is not a number, or a baseline is not a row of the table.
    """
    check_baselines(table, baselines)
    numbers = [number_of(column) for column in table.columns]
    figure, (axes,) = _panels(1)
    for index, (row, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        points = [(x, cell) for x, cell in zip(numbers, cells, strict=True) if cell.n]
        if not points:
            continue
        axes.errorbar(
            [x for x, _ in points],
            [cell.mean for _, cell in points],
            yerr=[cell.std for _, cell in points],  # nan, which one repeat has, draws none
            linestyle="--" if row in baselines else "-",
            capsize=3,
            elinewidth=0.9,
            label=row,
            **line_style(index),
        )
    if grows_geometrically(numbers):
        axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, table.columns)
    axes.set_xticks([], minor=True)
    axes.set_title(table.title, loc="left", fontsize=11, color=INK, pad=10)
    label_lines(axes, x=table.column_axis, y=table.value)
    return _save(figure, axes, path, title=table.row_axis)


def grows_geometrically(numbers: Sequence[float]) -> bool:
    """Return whether positive numbers are spaced more evenly by their logarithms."""
    ordered = sorted(set(numbers))
    if len(ordered) < 3 or ordered[0] <= 0:
        return False
    return _unevenness([math.log2(number) for number in ordered]) < _unevenness(ordered)


def _unevenness(ordered: Sequence[float]) -> float:
    """Return the standard deviation of the gaps, their mean being 1."""
    gaps = [right - left for left, right in zip(ordered, ordered[1:], strict=False)]
    return statistics.pstdev(gaps) / statistics.fmean(gaps)


def curve_figure(curves: Curves, path: Path, *, row_axis: str, column_axis: str) -> Path:
    """Draw the validation mIoU of candidates over steps: a panel per column, a line per row.

    A line is the mean over repeats; a band of one sample standard deviation lies around it where
    there are two or more.

    Args:
        curves: what to draw; every sequence holds at least one curve.
        path: where the PNG goes; its folder must exist.
        row_axis: name of what the lines are.
        column_axis: name of what the panels are.

    Returns:
        ``path``.

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("no curve to draw")
    rows = list(dict.fromkeys(row for row, _ in curves))
    columns = list(dict.fromkeys(column for _, column in curves))
    figure, panels = _panels(len(columns))
    drawn: dict[str, Axes] = {}
    for (row, column), repeats in curves.items():
        axes = panels[columns.index(column)]
        _draw_curve(axes, repeats, index=rows.index(row), label="" if row in drawn else row)
        drawn.setdefault(row, axes)
    for axes, column in zip(panels, columns, strict=True):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"{column_axis}: {column}", loc="left", fontsize=11, color=INK)
        label_lines(axes, x="step", y="validation mIoU" if axes is panels[0] else "")
    return _save(figure, panels[-1], path, title=row_axis)


def _draw_curve(axes: Axes, repeats: Sequence[Curve], *, index: int, label: str) -> None:
    scores: dict[int, list[float]] = defaultdict(list)
    for curve in repeats:
        for step, score in curve.items():
            scores[step].append(score)
    steps = sorted(scores)
    means = [statistics.fmean(scores[step]) for step in steps]
    style = line_style(index)
    axes.plot(steps, means, label=label or None, markersize=4, **style)
    spreads = [statistics.stdev(scores[s]) if len(scores[s]) > 1 else 0.0 for s in steps]
    if any(spreads):
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.6 + 4.6 * count, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def _save(figure: Figure, last: Axes, path: Path, *, title: str) -> Path:
    """Write the figure with one legend to the right of its last panel."""
    low, high = last.get_ylim()  # of all panels, which share it
    if high - low < LEAST_SPAN:
        low = min(low, max(0.0, (low + high - LEAST_SPAN) / 2))  # scores are not negative
        last.set_ylim(low, low + LEAST_SPAN)
    named = [
        pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)
    ]
    if named:
        legend = last.legend(
            *zip(*named, strict=True),
            title=title,
            loc="upper left",
            bbox_to_anchor=(1.02, 1.0),
            frameon=False,
            labelcolor=INK,
            fontsize=8.5,
        )
        legend.get_title().set_color(INK)
    figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight", facecolor="white")
    return path
