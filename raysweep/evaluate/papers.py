"""The papers' printed numbers, to be shown beside a sweep's and never compared one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raysweep.evaluate.tables import MISSING, Table, to_markdown

Value = float | tuple[float, float] | None
"""A number, or mean and standard deviation, in the table's unit; None is not printed."""


@dataclass(frozen=True)
class PaperTable:
    """One printed table, or a figure of which only the conclusion is known.

    Attributes:
        id: short name, used in tracking tags.
        paper: title of the paper.
        where: table or section.
        metric: what the numbers are, and on which data.
        unit: of scores, ``fraction`` (0 to 1) or ``percent`` (0 to 100).
        digits: decimals that are printed.
        varies: the swept axes.
        claim: what the paper concludes.
        claim_check: whether the printed numbers support the conclusion. Begins with ``supported``,
            with ``supported in part:`` where a number contradicts it, or with ``cannot be
            checked:`` where those that it needs are not printed.
        row_axis: name of the axis that runs down.
        column_axis: name of the axis that runs across.
        rows: row labels; numbers are ascending. None if there are no values.
        columns: column labels; numbers are ascending. None if there are no values.
        values: ``values[i][j]`` belongs to row ``i`` and column ``j``.
    """

    id: str
    paper: str
    where: str
    metric: str
    unit: Literal["fraction", "percent"]
    digits: int
    varies: str
    claim: str
    claim_check: str
    row_axis: str
    column_axis: str
    rows: tuple[int | str, ...]
    columns: tuple[int | str, ...]
    values: tuple[tuple[Value, ...], ...]

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The values as they are printed; ``-`` for what is not."""
        return tuple(tuple(self._text(value) for value in line) for line in self.values)

    def _text(self, value: Value) -> str:
        if value is None:
            return MISSING
        numbers = value if isinstance(value, tuple) else (value,)
        return " +- ".join(f"{number:.{self.digits}f}" for number in numbers)


def transpose(paper: PaperTable) -> PaperTable:
    """Return the table with rows and columns exchanged."""
    return replace(
        paper,
        row_axis=paper.column_axis,
        column_axis=paper.row_axis,
        rows=paper.columns,
        columns=paper.rows,
        values=tuple(zip(*paper.values, strict=True)),
    )


def caveat(paper: PaperTable) -> str:
    """Return the sentences that must stand wherever the paper's numbers are shown."""
    unit = "scores in percent" if paper.unit == "percent" else "scores from 0 to 1"
    return (
        f"The paper's numbers are {paper.metric}; {unit}. They are on other data, at other "
        "resolutions and with other budgets: compare the trend along each axis, never number by "
        "number."
    )


def beside(table: Table, papers: Sequence[PaperTable]) -> str:
    """Return Markdown with our table and the papers' below it, marked as not comparable.

    A paper's table is shown as it is stored; :func:`transpose` it first to line up the axes.
    """
    return "\n".join([to_markdown(table), *map(_for_orientation, papers)])


def _for_orientation(paper: PaperTable) -> str:
    lines = [f"**For orientation: {paper.paper} {paper.where}**", ""]
    if paper.values:
        lines += [
            caveat(paper),
            "",
            f"| {paper.row_axis} \\ {paper.column_axis} | {' | '.join(map(str, paper.columns))} |",
            "|---" + "|---:" * len(paper.columns) + "|",
        ]
        lines += [
            f"| {row} | {' | '.join(line)} |"
            for row, line in zip(paper.rows, paper.texts, strict=True)
        ]
        lines.append("")
    lines += [f"Claim: {paper.claim}.", f"Their numbers: {paper.claim_check}."]
    return "\n".join(lines) + "\n"


def paper_cell(paper: PaperTable, ranks: Mapping[str, int]) -> str | None:
    """Name the paper's cell that plays the part of one of ours.

    Resolutions are matched by rank, since ours are smaller: the lowest of a sweep stands for the
    lowest of the paper.

    Args:
        paper: the printed table.
        ranks: position of our cell on each of the paper's axes, 0 = lowest, e.g.
            ``{"moco": 0, "segmentor": 1}``.

    Returns:
        E.g. ``ganorcon_appE[segmentor=256, moco=96]``; None where the paper's axis is shorter.

    Raises:
        ValueError: ``ranks`` does not name exactly the paper's two axes.
    """
    axes = {paper.row_axis: paper.rows, paper.column_axis: paper.columns}
    if set(ranks) != set(axes):
        raise ValueError(f"ranks name {sorted(ranks)}; {paper.id} has the axes {sorted(axes)}")
    if any(not 0 <= ranks[axis] < len(values) for axis, values in axes.items()):
        return None
    place = ", ".join(f"{axis}={values[ranks[axis]]}" for axis, values in axes.items())
    return f"{paper.id}[{place}]"


def table_of(cell: str) -> str:
    """Return the id of the table that a cell's name begins with; see :func:`paper_cell`."""
    return cell.partition("[")[0]
