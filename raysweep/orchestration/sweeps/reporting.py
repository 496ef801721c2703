"""All sweeps of a storage on one page: the job behind ``jobs/report.py``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.fs as pafs
from rich.console import Console

from raysweep.config import ConfigError, digest
from raysweep.evaluate.report import Report, from_json, html_of_all
from raysweep.orchestration import terminal
from raysweep.orchestration.store.cost import git_revision
from raysweep.orchestration.store.storage import Storage, write_atomically
from raysweep.orchestration.sweeps.outcome import RECORD
from raysweep.orchestration.tracking.client import (
    END_SECONDS,
    Sender,
    connect,
    experiment_id,
    public,
)

PAGE = "report.html"
TRACES = ("table.csv", "log.txt")
"""Files by which a directory is known as a sweep's that has no record."""
LATEST = datetime.max.replace(tzinfo=UTC)


def run_report(options: argparse.Namespace) -> int:
    """Write the page of all sweeps, and put it on MLflow; return the exit code.

    Raises:
        ConfigError: there is no sweep in the storage, or it cannot be written.
    """
    storage, console = Storage(options.storage), terminal.console()
    reports, untold = gather(storage)
    if not reports and not untold:
        raise ConfigError(
            f"--storage {options.storage!r} holds no sweep; run one first, e.g. "
            f"python jobs/sweep_resolution.py --storage {options.storage}"
        )
    for line in _summary(reports, untold):
        console.print(line, soft_wrap=True)
    if options.dry_run:
        return 0
    storage.check_writable()
    count = len(reports)
    title = f"{count} sweep{'' if count == 1 else 's'} in {public(storage.uri)}"
    page = html_of_all(reports, title=title, untold=untold)
    place = storage.local(PAGE)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, page.encode())
    if not storage.is_local:
        storage.upload(place, PAGE)
    console.print(f"page: {storage.address(PAGE)}", soft_wrap=True)
    _send(storage, place, console)
    return 0


def gather(storage: Storage) -> tuple[list[Report], dict[str, str]]:
    """Read what sweeps have left in a storage.

    Returns:
        Reports, newest first, and sweep to why there is none and what to do.
    """
    reports: list[Report] = []
    untold: dict[str, str] = {}
    for name, found in _sweeps(storage):
        if RECORD not in found:
            untold[name] = (
                "has no report.json: it was stopped before its first trial, or is older than this "
                "page; the command that started it adds it"
            )
            continue
        try:
            text = _read(storage, name, RECORD) or b""
            reports.append(from_json(text.decode(), partial(_read, storage, name)))
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            untold[name] = (
                f"its {RECORD} cannot be read ({reason}); the command that started it writes it "
                "again"
            )
    reports.sort(key=lambda report: report.name)
    return sorted(reports, key=lambda report: report.finished or LATEST, reverse=True), untold


def _sweeps(storage: Storage) -> Iterator[tuple[str, set[str]]]:
    """Yield the directories of sweeps, each with what it has of record and traces."""
    root = pafs.FileSelector(storage.path().rstrip("/"), allow_not_found=True)
    names = [
        found.base_name
        for found in storage.fs.get_file_info(root)
        if found.type == pafs.FileType.Directory
    ]
    for name in sorted(names):
        places = [storage.path(name, file) for file in (RECORD, *TRACES)]
        infos = storage.fs.get_file_info(places)
        found = {info.base_name for info in infos if info.type == pafs.FileType.File}
        if found:
            yield name, found


def _read(storage: Storage, *names: str) -> bytes | None:
    """Return a file, None where there is none."""
    try:
        with storage.fs.open_input_stream(storage.path(*names)) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def _summary(reports: list[Report], untold: dict[str, str]) -> Iterator[str]:
    for report in reports:
        line = f"{report.name}: {report.trials - report.left} of {report.trials} trials"
        line += f", {len(report.failures)} failed" if report.failures else ""
        yield f"{line}, last score {report.when}" + (" UTC" if report.finished else "")
        if report.left:
            yield f"  incomplete; this finishes it: {report.command}"
    for name, why in untold.items():
        yield f"{name}: not shown: {why}"


def _send(storage: Storage, page: Path, console: Console) -> None:
    """Log the page as an artifact of the storage's run ``report``, made on first use."""

    def send() -> None:
        client = connect(storage)
        experiment = experiment_id(client, storage, "raysweep/report")
        mine = digest(storage.uri)
        found = client.search_runs([experiment], f"tags.`raysweep.report` = '{mine}'")
        tags = {"raysweep.report": mine, "mlflow.source.name": "raysweep"}
        run = found[0] if found else client.create_run(experiment, tags=tags, run_name="report")
        client.set_tag(run.info.run_id, "git.revision", git_revision())
        client.log_artifact(run.info.run_id, str(page))
        client.set_terminated(run.info.run_id)

    sender = Sender()
    sender.post(send)
    with terminal.passing_on(console.print):
        sent = sender.settle(time.monotonic() + END_SECONDS)
    console.print(
        "MLflow: run report of the experiment raysweep/report"
        if sent
        else f"MLflow could not be reached ({sender.problem}); the page is complete without it",
        soft_wrap=True,
    )
