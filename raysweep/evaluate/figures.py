"""A sweep's pictures: its table as a heat map or as lines, and curves.

Every figure is an object of its own, outside any plotting state.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from raysweep.evaluate.images import Bytes
from raysweep.evaluate.robustness import ShiftScore
from raysweep.evaluate.tables import MISSING, Cell, Table, best

COLOURS = "viridis"  # perceptually uniform, and readable without colour vision
INK = "#222222"
GAP = 0.25  # between baselines and swept rows, in cells
DOTS_PER_INCH = 160

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's colours, told apart with colour vision deficiencies."""
MARKERS = "osD^vP"

RGBA = tuple[float, float, float, float]


def heat_map(table: Table, path: Path, *, baselines: Collection[str]) -> Path:
    """Draw the table with mean and standard deviation written in every cell.

    Args:
        table: what to draw.
        path: where the PNG goes; its folder must exist.
        baselines: rows that were not swept (raw colour, random weights): they stand apart, above
            or below, wherever the table has them.

    Returns:
        ``path``.

    Raises:
        ValueError: a baseline is not a row of the table.
    """
    check_baselines(table, baselines)
    tops = _row_tops(table.rows, baselines)
    figure = Figure(figsize=(2.6 + 1.25 * len(table.columns), 1.5 + 0.68 * (tops[-1] + 1)))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    limits = _limits(table)
    shades = matplotlib.colormaps[COLOURS]
    winners = best(table)
    for i, row in enumerate(table.rows):
        for j, column in enumerate(table.columns):
            marked = winners.get(column) == row
            _draw_cell(
                axes,
                table.cells[i][j],
                at=(j, tops[i]),
                colour=shades(limits(table.cells[i][j].mean)),
                marked=marked,
            )
    _label_axes(axes, table, tops)
    _add_scale(figure, axes, ScalarMappable(limits, shades), label=table.value)
    figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight", facecolor="white")
    return path


def check_baselines(table: Table, baselines: Collection[str]) -> None:
    """Refuse baselines that are not rows.

    Raises:
        ValueError: names one of them and the rows.
    """
    unknown = sorted(set(baselines) - set(table.rows))
    if unknown:
        raise ValueError(f"baseline {unknown[0]!r} is not a row; rows: {', '.join(table.rows)}")


def shift_figure(
    curves: Mapping[str, Sequence[ShiftScore]], strips: Mapping[str, Bytes], path: Path
) -> Path:
    """Draw the mIoU by shift, a line per family, above strips of examples by shift.

    Args:
        curves: family to its points, the same shifts for all.
        strips: label to pictures ``(shifts, h, w, 3)`` uint8, a row each from the top down.
        path: where the PNG goes; its folder must exist.

    Returns:
        ``path``.

    Raises:
        ValueError: there is no curve, or families or strips do not have the same shifts.
    """
    shifts = _common_shifts(curves, strips)
    side = max(6.0, 1.2 * len(shifts)) / len(shifts)  # of a picture, in inches
    figure = Figure(figsize=(side * len(shifts), 3.4 + side * len(strips)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [3.4, *[side] * len(strips)]
    places = figure.add_gridspec(1 + len(strips), len(shifts), height_ratios=heights)
    _draw_curves(figure.add_subplot(places[0, :]), curves)
    for row, (label, strip) in enumerate(strips.items(), start=1):
        for column, picture in enumerate(strip):
            title = f"{shifts[column]} px" if row == 1 else ""
            _draw_picture(
                figure.add_subplot(places[row, column]),
                picture,
                title=title,
                label="" if column else label,
            )
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")
    return path


def _common_shifts(
    curves: Mapping[str, Sequence[ShiftScore]], strips: Mapping[str, Bytes]
) -> list[int]:
    shifts = [point.shift for point in next(iter(curves.values()), ())]
    for label, points in curves.items():
        if [point.shift for point in points] != shifts:
            raise ValueError(f"{label!r} has other shifts than {shifts}")
    for label, strip in strips.items():
        if len(strip) != len(shifts):
            raise ValueError(f"{label!r} has {len(strip)} pictures for {len(shifts)} shifts")
    if not shifts:
        raise ValueError("no shift to draw")
    return shifts


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[ShiftScore]]) -> None:
    for index, (label, points) in enumerate(curves.items()):
        shifts, scores = [point.shift for point in points], [point.miou for point in points]
        axes.plot(shifts, scores, label=label, **line_style(index))
    axes.set_ylim(bottom=0)
    label_lines(axes, x="shift to the right, px", y="mIoU")
    axes.legend(frameon=False, labelcolor=INK)


def line_style(index: int) -> dict[str, Any]:
    """Return colour and marker of a line, for :meth:`Axes.plot`; 36 can be told apart."""
    count = len(LINES)
    marker = MARKERS[(index + index // count) % len(MARKERS)]
    return {"color": LINES[index % count], "marker": marker}


def label_lines(axes: Axes, *, x: str, y: str) -> None:
    """Name the axes of a plot of lines and leave of its frame what helps to read values."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.tick_params(length=0, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_picture(axes: Axes, picture: Bytes, *, title: str, label: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=INK)
    axes.set_ylabel(label.replace(" ", "\n", 1), fontsize=8, color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _row_tops(rows: tuple[str, ...], baselines: Collection[str]) -> list[float]:
    """Return where each row starts, with a gap wherever baselines meet swept rows."""
    tops = [0.0]
    for above, below in zip(rows, rows[1:], strict=False):
        border = (above in baselines) != (below in baselines)
        tops.append(tops[-1] + 1 + (GAP if border else 0))
    return tops


def _limits(table: Table) -> Normalize:
    means = [cell.mean for line in table.cells for cell in line if cell.n]
    if not means:
        return Normalize(0, 1)
    spread = max(means) - min(means)
    # equal means would leave the colour scale without a length
    return Normalize(min(means), min(means) + (spread if spread > 0 else 1e-3))


def _draw_cell(
    axes: Axes, cell: Cell, *, at: tuple[float, float], colour: RGBA, marked: bool
) -> None:
    x, y = at
    corner = (x + 0.02, y + 0.02)
    if not cell.n:
        axes.add_patch(
            Rectangle(corner, 0.96, 0.96, facecolor="#f2f2f2", edgecolor="#cccccc", hatch="///")
        )
        axes.text(x + 0.5, y + 0.5, MISSING, ha="center", va="center", color=INK)
        return
    ink = _ink_on(colour)
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=colour, linewidth=0))
    if marked:
        axes.add_patch(
            Rectangle((x + 0.07, y + 0.07), 0.86, 0.86, fill=False, edgecolor=ink, linewidth=1.2)
        )
    weight = "bold" if marked else "normal"
    middle = x + 0.5
    axes.text(
        middle, y + 0.42, f"{cell.mean:.3f}", ha="center", va="center", color=ink, weight=weight
    )
    spread = "one repeat" if math.isnan(cell.std) else f"\N{PLUS-MINUS SIGN} {cell.std:.3f}"
    axes.text(middle, y + 0.7, spread, ha="center", va="center", color=ink, fontsize=7.5)


def _ink_on(colour: RGBA) -> str:
    """Return black or white, whichever has more contrast (WCAG 2.1 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _label_axes(axes: Axes, table: Table, tops: list[float]) -> None:
    axes.set_xlim(0, len(table.columns))
    axes.set_ylim(tops[-1] + 1, 0)
    axes.set_xticks([j + 0.5 for j in range(len(table.columns))], table.columns)
    axes.set_yticks([top + 0.5 for top in tops], table.rows)
    axes.set_xlabel(table.column_axis, color=INK, labelpad=6)
    axes.set_ylabel(table.row_axis, color=INK, labelpad=6)
    axes.set_title(table.title, loc="left", fontsize=11, color=INK, pad=10)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _add_scale(figure: Figure, axes: Axes, colours: ScalarMappable, *, label: str) -> None:
    bar = figure.colorbar(colours, ax=axes, fraction=0.05, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, colors=INK)
    bar.set_label(label, fontsize=9, color=INK)
