"""One self-contained HTML page per sweep: what was run, the table, the pictures, the lineage."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from raysweep.evaluate import fit_costs
from raysweep.evaluate.fit_costs import FitCost
from raysweep.evaluate.papers import PaperTable, caveat
from raysweep.evaluate.tables import Table, best, best_cell, caption, cell_text

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Picture:
    """A PNG with the sentence that belongs under it."""

    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` URI, so that the page needs no second file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Lineage:
    """The stages behind one number.

    Attributes:
        row: label of the cell's row.
        column: label of the cell's column.
        repeat: which repeat.
        stages: stage name to stage key, first stage first.
    """

    row: str
    column: str
    repeat: int
    stages: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """A trial without a score: its name, its last error line, and where its log lies."""

    trial: str
    message: str
    log: str


@dataclass(frozen=True)
class Report:
    """Everything the page shows.

    Attributes:
        table: the result.
        command: the command that ran the sweep; the same command resumes it.
        preset: name of the preset.
        dataset: facts to list (name, fingerprint, counts), in order.
        machine: one line on where it ran.
        revision: git revision of the code.
        figure: the table as a picture.
        baselines: rows that were not swept.
        pictures: more pictures in order: the best cell's predictions, learning curves.
        costs: what the fits of the rows took.
        papers: the papers' tables to show for orientation, turned as they should appear.
        lineage: the stages behind every number.
        failures: trials without a score.
    """

    table: Table
    command: str
    preset: str
    dataset: Mapping[str, str | int]
    machine: str
    revision: str
    figure: Picture
    baselines: Collection[str] = ()
    pictures: tuple[Picture, ...] = ()
    costs: tuple[FitCost, ...] = ()
    papers: tuple[PaperTable, ...] = ()
    lineage: tuple[Lineage, ...] = ()
    failures: tuple[Failure, ...] = ()


def html(report: Report) -> str:
    """Return the page. Every text in it is escaped; it refers to no file and no server."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text())
    table = report.table
    return template.render(
        report=report,
        table=table,
        texts=[[cell_text(cell) for cell in line] for line in table.cells],
        winners=best(table),
        champion=best_cell(table),
        caption=caption(table),
        cost_headings=fit_costs.HEADINGS,
        cost_caveat=fit_costs.CAVEAT,
        caveats=[caveat(paper) for paper in report.papers],
        titles=list(dict.fromkeys(paper.paper for paper in report.papers)),
        stages=_stage_names(report.lineage),
    )


def write(report: Report, path: Path) -> Path:
    """Write the page to ``path``, whose folder must exist, and return it."""
    path.write_text(html(report), encoding="utf-8")
    return path


def _stage_names(lineage: tuple[Lineage, ...]) -> list[str]:
    return list(dict.fromkeys(name for line in lineage for name in line.stages))
