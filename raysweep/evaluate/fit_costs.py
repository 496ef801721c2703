"""What a row's fit costs: seconds, and seconds per step beside those of the other rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysweep.evaluate.tables import MISSING

HEADINGS = ("fits", "seconds", "time of a step")
CAVEAT = (
    "Mean seconds of a fit, over the finished columns and repeats of the row, and the time of a "
    "step relative to the first row; a step of another method is other work. They were measured "
    "while other trials ran beside: small differences mean nothing."
)


@dataclass(frozen=True)
class FitCost:
    """What the fits of a row took.

    Attributes:
        row: label of the row.
        fits: how many were measured.
        seconds: mean of a fit.
        per_step: mean time of a step as a multiple of the first row's that has any; None where
            fits took no step.
    """

    row: str
    fits: int
    seconds: float
    per_step: float | None

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells under :data:`HEADINGS`."""
        step = MISSING if self.per_step is None else f"{self.per_step:.2f}"
        return (str(self.fits), f"{self.seconds:.1f}", step)


def fit_costs(measured: Mapping[str, Sequence[tuple[float, int]]]) -> tuple[FitCost, ...]:
    """Return what the fits of each row cost.

    Args:
        measured: row to the seconds and steps of its fits, in the order of the table. Rows
            without any are left out.
    """
    per_step = {
        row: statistics.fmean(seconds / steps for seconds, steps in fits)
        for row, fits in measured.items()
        if fits and all(steps > 0 for _, steps in fits)
    }
    first = next((value for value in per_step.values() if value > 0), None)
    return tuple(
        FitCost(
            row,
            len(fits),
            statistics.fmean(seconds for seconds, _ in fits),
            None if first is None or row not in per_step else per_step[row] / first,
        )
        for row, fits in measured.items()
        if fits
    )


def to_markdown(costs: Sequence[FitCost], *, row_axis: str) -> str:
    """Return the costs as a Markdown table with the sentences that belong to it."""
    lines = ["**What a fit costs**", "", CAVEAT, "", f"| {row_axis} | {' | '.join(HEADINGS)} |"]
    lines.append("|---" + "|---:" * len(HEADINGS) + "|")
    lines += [f"| {cost.row} | {' | '.join(cost.texts)} |" for cost in costs]
    return "\n".join(lines) + "\n"
