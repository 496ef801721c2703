"""What a sweep leaves behind: table, figure, report, and the last lines on the terminal."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from rich.console import Console

from raysweep.data.dataset import DatasetInfo
from raysweep.evaluate import fit_costs, report
from raysweep.evaluate.figures import heat_map
from raysweep.evaluate.line_figures import Curve, Curves, curve_figure, line_figure
from raysweep.evaluate.papers import beside
from raysweep.evaluate.tables import Table, best_cell, caption, pivot, render, to_csv
from raysweep.orchestration.compute.pipeline import CANDIDATES
from raysweep.orchestration.planning.plan import Plan, SearchSpace, Trial
from raysweep.orchestration.store.cost import git_revision
from raysweep.orchestration.store.stages import DONE, Stage, StageStore
from raysweep.orchestration.store.storage import write_atomically
from raysweep.orchestration.sweeps.notes import notes_on

FIGURE, CURVES, PREDICTIONS = "figure.png", "curves.png", "predictions.png"
RECORD = "report.json"
"""What ``jobs/report.py`` makes a page of many sweeps from."""
ABOUT_CURVES = (
    "Validation mIoU of the candidates over the steps of what is scored: mean over repeats; the "
    "band is one sample standard deviation"
)


@dataclass(frozen=True)
class Outcome:
    """The table of a sweep, what to know of it, and the files it was written to, by name."""

    table: Table
    notes: tuple[str, ...]
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
    """Write table (CSV, Markdown), figures and HTML report from the finished stages.

    Off the local disk they are stored too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    page = _known(directory.name, plan, space, store, info=info, preset=preset)
    files = _write_tables(directory, page, space)
    files |= _draw(directory, page.table, plan, space, store)
    files |= _keep_predictions(directory, plan, store, page.table)
    page = replace(
        page,
        figure=report.Picture(caption(page.table), files[FIGURE].read_bytes(), FIGURE),
        pictures=tuple(
            report.Picture(text, files[name].read_bytes(), name)
            for name, text in _captions(plan, store, page.table).items()
            if name in files
        ),
        failures=_failures(failures),
    )
    files["report.html"] = report.write(page, directory / "report.html")
    files[RECORD] = directory / RECORD
    files[RECORD].write_text(report.to_json(page))
    if not store.storage.is_local:
        for name, path in files.items():
            store.storage.upload(path, directory.name, name)
    return Outcome(page.table, page.notes, files)


def announce(
    directory: Path,
    plan: Plan,
    space: SearchSpace,
    store: StageStore,
    *,
    info: DatasetInfo,
    preset: str,
) -> None:
    """Write what is known before trials run, so that a sweep that is killed can be reported."""
    directory.mkdir(parents=True, exist_ok=True)
    page = _known(directory.name, plan, space, store, info=info, preset=preset)
    write_atomically(directory / RECORD, report.to_json(page).encode())
    if not store.storage.is_local:
        store.storage.upload(directory / RECORD, directory.name, RECORD)


def _known(
    name: str,
    plan: Plan,
    space: SearchSpace,
    store: StageStore,
    *,
    info: DatasetInfo,
    preset: str,
) -> report.Report:
    """Return what finished stages say of a sweep, without pictures."""
    title = f"{preset} on {info.name}: mIoU on the test split"
    return report.Report(
        table=table_of(plan, space, store, title=title),
        command=command_line(),
        preset=preset,
        dataset=_facts(info),
        machine=machine(),
        revision=git_revision(),
        figure=None,
        baselines=_baselines(plan, space),
        costs=fit_costs.fit_costs(_measured(plan, store)),
        papers=space.PAPERS,
        lineage=_lineage(plan, store),
        notes=notes_on(plan, store),
        name=name,
        trials=len(plan.trials),
        finished=_finished(plan, store),
    )


def _finished(plan: Plan, store: StageStore) -> datetime | None:
    """Return when the last score was computed, however often it has been shown since."""
    storage = store.storage
    places = [storage.path(*trial.chain.evaluate.place, DONE) for trial in plan.trials]
    times = [found.mtime for found in storage.fs.get_file_info(places) if found.mtime]
    return max(times).astimezone(UTC) if times else None


def _write_tables(directory: Path, page: report.Report, space: SearchSpace) -> dict[str, Path]:
    sections = [beside(page.table, page.papers), *(f"Note: {note}.\n" for note in page.notes)]
    if page.costs:
        sections.append(fit_costs.to_markdown(page.costs, row_axis=space.ROW_AXIS))
    texts = {"table.csv": to_csv(page.table), "table.md": "\n".join(sections)}
    for name, text in texts.items():
        (directory / name).write_text(text)
    return {name: directory / name for name in texts}


def _draw(
    directory: Path, table: Table, plan: Plan, space: SearchSpace, store: StageStore
) -> dict[str, Path]:
    """Draw the table and, if the page asks and results have them, learning curves."""
    draw = line_figure if space.FIGURE == "lines" else heat_map
    files = {FIGURE: draw(table, directory / FIGURE, baselines=_baselines(plan, space))}
    curves = _curves(plan, space, store)
    if curves:
        files[CURVES] = curve_figure(
            curves, directory / CURVES, row_axis=space.ROW_AXIS, column_axis=space.COLUMN_AXIS
        )
    return files


def _baselines(plan: Plan, space: SearchSpace) -> tuple[str, ...]:
    return tuple(row for row in space.BASELINES if row in plan.rows)


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
    for note in outcome.notes:
        console.print(f"  note: {note}", soft_wrap=True)
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


def _facts(info: DatasetInfo) -> dict[str, str | int]:
    counts = {f"{split} images": count for split, count in info.counts.items()}
    return {"name": info.name, "fingerprint": info.fingerprint, **counts}


def _failures(failures: Mapping[str, str]) -> tuple[report.Failure, ...]:
    return tuple(
        report.Failure(trial, text.splitlines()[0], f"logs/{log_name(trial)}")
        for trial, text in failures.items()
    )


def _measured(plan: Plan, store: StageStore) -> dict[str, list[tuple[float, int]]]:
    """Return seconds and steps of every row's fits; what several columns score counts once."""
    found: dict[str, dict[Stage, tuple[float, int]]] = {row: {} for row in plan.rows}
    for trial in plan.trials:
        stage = trial.chain.fit
        if store.done(stage):
            record = store.record(stage)
            found[trial.row][stage] = (record["cost"]["seconds"], record["metrics"]["step"])
    return {row: list(fits.values()) for row, fits in found.items()}


def _curves(plan: Plan, space: SearchSpace, store: StageStore) -> Curves:
    """Return the candidates of the page's rows, as far as evaluations have left them."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for trial in plan.trials:
        stage = trial.chain.evaluate
        if trial.row not in space.CURVES or not store.done(stage):
            continue
        place = store.directory(stage) / CANDIDATES
        if place.exists():
            curve = {row["step"]: row["val_miou"] for row in json.loads(place.read_text())}
            found.setdefault(trial.configuration, []).append(curve)
    return found


def _keep_predictions(
    directory: Path, plan: Plan, store: StageStore, table: Table
) -> dict[str, Path]:
    """Copy the picture of the best cell's predictions, if there is one."""
    trial = _best(plan, store, table)
    if trial is None:
        return {}
    picture = store.directory(trial.chain.evaluate) / "grid.png"
    return {PREDICTIONS: Path(shutil.copyfile(picture, directory / PREDICTIONS))}


def _best(plan: Plan, store: StageStore, table: Table) -> Trial | None:
    """Return the first finished repeat of the best cell."""
    best = best_cell(table)
    found = (trial for trial in plan.trials if trial.configuration == best)
    return next((trial for trial in found if store.done(trial.chain.evaluate)), None)


def _captions(plan: Plan, store: StageStore, table: Table) -> dict[str, str]:
    """Return what stands under the pictures beside the figure, in their order."""
    about = f"Test images, truth and predictions: {_best(plan, store, table)}"
    return {PREDICTIONS: about, CURVES: ABOUT_CURVES}


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
