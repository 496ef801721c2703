"""What a sweep leaves behind: table, figure, report, and the last lines on the terminal."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from raysweep.data.dataset import DatasetInfo
from raysweep.evaluate import figures, report
from raysweep.evaluate.papers import beside
from raysweep.evaluate.tables import Table, best_cell, caption, pivot, render, to_csv
from raysweep.orchestration.cost import git_revision
from raysweep.orchestration.plan import Plan, SearchSpace
from raysweep.orchestration.stages import StageStore


@dataclass(frozen=True)
class Outcome:
    """The table of a sweep and the files it was written to, by name."""

    table: Table
    files: Mapping[str, Path]


def write_outcome(
    directory: Path,
    plan: Plan,
    space: SearchSpace,
    store: StageStore,
    *,
    info: DatasetInfo,
    preset: str,
    failures: Mapping[str, str],
) -> Outcome:
    """Write table (CSV, Markdown), figure and HTML report from the finished stages."""
    directory.mkdir(parents=True, exist_ok=True)
    title = f"{preset} on {info.name}: mIoU on the test split"
    table = table_of(plan, space, store, title=title)
    paper = space.PAPER
    files = {name: directory / name for name in ("table.csv", "table.md", "figure.png")}
    files["table.csv"].write_text(to_csv(table))
    files["table.md"].write_text(beside(table, paper))
    baselines = tuple(row for row in space.BASELINES if row in plan.rows)
    figures.heat_map(table, files["figure.png"], baselines=baselines)
    files["report.html"] = report.write(
        report.Report(
            table=table,
            command=command_line(),
            preset=preset,
            dataset={
                "name": info.name,
                "fingerprint": info.fingerprint,
                **{f"{split} images": count for split, count in info.counts.items()},
            },
            machine=machine(),
            revision=git_revision(),
            heat_map=report.Picture(caption(table), files["figure.png"].read_bytes()),
            baselines=baselines,
            pictures=_pictures(plan, store, table),
            paper=paper,
            lineage=_lineage(plan, store),
            failures=tuple(
                report.Failure(trial, text.splitlines()[0], f"logs/{log_name(trial)}")
                for trial, text in failures.items()
            ),
        ),
        directory / "report.html",
    )
    return Outcome(table, files)


def table_of(plan: Plan, space: SearchSpace, store: StageStore, *, title: str) -> Table:
    """Return the table of what is finished, read from the store."""
    rows = [
        {
            "row": trial.row,
            "column": trial.column,
            "repeat": trial.repeat,
            "mIoU": store.record(trial.chain.evaluate)["metrics"]["miou"],
        }
        for trial in plan.trials
        if store.done(trial.chain.evaluate)
    ]
    frame = pd.DataFrame(rows, columns=["row", "column", "repeat", "mIoU"])
    return pivot(
        frame.rename(columns={"row": space.ROW_AXIS, "column": space.COLUMN_AXIS}),
        rows=space.ROW_AXIS,
        columns=space.COLUMN_AXIS,
        value="mIoU",
        title=title,
        row_order=plan.rows,
        column_order=plan.columns,
    )


def show(console: Console, outcome: Outcome, *, ui: str, failures: Mapping[str, str]) -> None:
    """Print what failed, where the files are, the table, and how to open the MLflow UI."""
    for trial, text in failures.items():
        console.print(f"failed: {trial}: {text.splitlines()[0]} (log: logs/{log_name(trial)})")
    console.print()
    console.print(render(outcome.table))
    for path in outcome.files.values():
        console.print(f"  {_short(path)}", soft_wrap=True)
    console.print(f"Compare the runs in MLflow:  {ui}", soft_wrap=True)


def log_name(trial: str) -> str:
    """Return the file name of a trial's log."""
    return "".join(char if char.isalnum() else "-" for char in trial) + ".txt"


def command_line() -> str:
    """Return the command that was given, as one types it."""
    return shlex.join(["python", *sys.argv])


def machine() -> str:
    """Return one line on where this runs."""
    python = platform.python_version()
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {python}"


def _pictures(plan: Plan, store: StageStore, table: Table) -> tuple[report.Picture, ...]:
    best = best_cell(table)
    if best is None:
        return ()
    for trial in plan.trials:
        if trial.configuration == best and store.done(trial.chain.evaluate):
            png = (store.directory(trial.chain.evaluate) / "grid.png").read_bytes()
            return (report.Picture(f"Test images, truth and predictions: {trial}", png),)
    return ()


def _lineage(plan: Plan, store: StageStore) -> tuple[report.Lineage, ...]:
    return tuple(
        report.Lineage(
            row=trial.row,
            column=trial.column,
            repeat=trial.repeat,
            stages=trial.keys,
        )
        for trial in plan.trials
        if store.done(trial.chain.evaluate)
    )


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
