"""Self-contained HTML pages, of one sweep or of many, and the file that a page is made from.

A page shows what was run, the table, the papers' tables beside it, the pictures and the lineage.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pydantic

from raysweep.evaluate import fit_costs
from raysweep.evaluate.fit_costs import FitCost
from raysweep.evaluate.papers import PaperTable, caveat
from raysweep.evaluate.tables import MISSING, Table, best, best_cell, caption, cell_text

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Picture:
    """A PNG with the sentence that belongs under it, and the name of its file, if it has one."""

    caption: str
    png: bytes = b""
    file: str = ""

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
        figure: the table as a picture, None before there is one.
        baselines: rows that were not swept.
        pictures: more pictures in order: the best cell's predictions, learning curves.
        costs: what the fits of the rows took.
        papers: the papers' tables to show for orientation, turned as they should appear.
        lineage: the stages behind every number.
        notes: what to know of single numbers, a sentence each.
        failures: trials that ended without a score.
        name: of the sweep's directory.
        trials: how many the sweep has.
        finished: when its last score was computed, UTC.
    """

    table: Table
    command: str
    preset: str
    dataset: Mapping[str, str | int]
    machine: str
    revision: str
    figure: Picture | None
    baselines: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    costs: tuple[FitCost, ...] = ()
    papers: tuple[PaperTable, ...] = ()
    lineage: tuple[Lineage, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    name: str = ""
    trials: int = 0
    finished: datetime | None = None

    @property
    def left(self) -> int:
        """Number of trials without a score."""
        return max(0, self.trials - len(self.lineage))

    @property
    def when(self) -> str:
        """Date and time of the last score, without seconds."""
        return f"{self.finished:%Y-%m-%d %H:%M}" if self.finished else MISSING


def html(report: Report) -> str:
    """Return the page. Every text in it is escaped; it refers to no file and no server."""
    return _render([report], title=report.table.title, contents=False, untold={})


def html_of_all(
    reports: Sequence[Report], *, title: str, untold: Mapping[str, str] | None = None
) -> str:
    """Return one page of many sweeps, in the order given, with a list of contents.

    Args:
        reports: of the sweeps; their names tell them apart.
        title: of the page.
        untold: sweep to why it is not shown.
    """
    return _render(reports, title=title, contents=True, untold=untold or {})


def write(report: Report, path: Path) -> Path:
    """Write the page to ``path``, whose folder must exist, and return it."""
    path.write_text(html(report), encoding="utf-8")
    return path


def to_json(report: Report) -> str:
    """Return all but the pictures as JSON, those with a file by its name; see :func:`from_json`."""
    pictures: dict[str, Any] = {"figure": {"png"}, "pictures": {"__all__": {"png"}}}
    return _SCHEMA.dump_json(report, exclude=pictures, indent=1).decode() + "\n"


def from_json(text: str, picture: Callable[[str], bytes | None]) -> Report:
    """Return a report that :func:`to_json` has written.

    Args:
        text: the JSON.
        picture: file name to PNG, None where there is none; such pictures are left out.

    Raises:
        ValueError: it is none, or of another version.
    """
    found = _SCHEMA.validate_json(text)

    def filled(given: Picture) -> Picture | None:
        png = picture(given.file) if given.file else None
        return None if png is None else replace(given, png=png)

    return replace(
        found,
        figure=filled(found.figure) if found.figure else None,
        pictures=tuple(filter(None, map(filled, found.pictures))),
    )


_SCHEMA = pydantic.TypeAdapter(Report)


def _render(
    reports: Sequence[Report], *, title: str, contents: bool, untold: Mapping[str, str]
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text())
    papers = [paper for report in reports for paper in report.papers]
    return template.render(
        title=title,
        contents=contents,
        untold=untold.items(),
        pages=[_page(report) for report in reports],
        cost_headings=fit_costs.HEADINGS,
        cost_caveat=fit_costs.CAVEAT,
        titles=list(dict.fromkeys(paper.paper for paper in papers)),
    )


def _page(report: Report) -> dict[str, Any]:
    """Return what the template shows of a sweep beside its report."""
    table, champion = report.table, best_cell(report.table)
    top = MISSING
    if champion is not None:
        row, column = champion
        top = cell_text(table.cells[table.rows.index(row)][table.columns.index(column)])
    return {
        "report": report,
        "texts": [[cell_text(cell) for cell in line] for line in table.cells],
        "winners": best(table),
        "champion": champion,
        "top": top,
        "caption": caption(table),
        "caveats": [caveat(paper) for paper in report.papers],
        "stages": list(dict.fromkeys(name for line in report.lineage for name in line.stages)),
    }
