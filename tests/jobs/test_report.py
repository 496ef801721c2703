"""All sweeps of a storage on one page."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import mlflow
import pandas as pd
import pytest

from raysweep.evaluate import report, tables
from raysweep.evaluate.paper_tables import GANORCON_APPENDIX_E, LAGM_TABLE_2
from raysweep.evaluate.papers import transpose
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.reporting import gather
from tests.orchestration.object_store import serving

PNG = b"\x89PNG of "


def table_of(*scores):
    rows = [{"method": "moco", "px": "32", "repeat": at, "mIoU": x} for at, x in enumerate(scores)]
    return tables.pivot(
        pd.DataFrame(rows, columns=["method", "px", "repeat", "mIoU"]),
        rows="method",
        columns="px",
        value="mIoU",
        title="smoke on face",
        row_order=["raw", "moco"],
        column_order=["32"],
    )


def sweep(name, *scores, day=1, trials=2, failures=()):
    lineage = [report.Lineage("moco", "32", at, {"fit": f"key{at}"}) for at in range(len(scores))]
    return report.Report(
        table=table_of(*scores),
        command=f"python jobs/sweep_{name}.py --preset smoke",
        preset="smoke",
        dataset={"name": "face", "train": 8},
        machine="two cores",
        revision="0123abc",
        figure=report.Picture("the table", PNG + name.encode(), "figure.png"),
        pictures=(report.Picture("curves", PNG + b"curves", "curves.png"),),
        papers=(transpose(GANORCON_APPENDIX_E), LAGM_TABLE_2),
        lineage=tuple(lineage),
        failures=failures,
        name=name,
        trials=trials,
        finished=datetime(2025, 1, day, 12, 30, tzinfo=UTC) if scores else None,
    )


def leave(storage, page):
    """Leave what a sweep leaves."""
    place = storage / page.name
    place.mkdir(parents=True)
    (place / "report.json").write_text(report.to_json(page))
    (place / "figure.png").write_bytes(page.figure.png)
    for picture in page.pictures:
        (place / picture.file).write_bytes(picture.png)
    return page


@pytest.fixture(autouse=True)
def _no_mlflow(monkeypatch):
    """A server that is not there; making a database takes seconds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def runs(tmp_path):
    """A storage with an old sweep, a new one that lacks a trial, and things that are no sweep."""
    failed = (report.Failure("raw, repeat 1", "loss is nan", "logs/raw.txt"),)
    leave(tmp_path / "runs", sweep("shots", 0.5, 0.7, day=1))
    leave(tmp_path / "runs", sweep("resolution", 0.25, day=2, failures=failed))
    (tmp_path / "runs" / "stages" / "fit").mkdir(parents=True)
    return tmp_path / "runs"


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    left = [leave(tmp_path, sweep("shots", 0.1 + 0.2, 0.7)), leave(tmp_path, sweep("announced"))]
    found, untold = gather(Storage(str(tmp_path)))
    assert found == left[::-1]
    assert not untold
    (tmp_path / "shots" / "curves.png").unlink()
    assert gather(Storage(str(tmp_path)))[0][1] == replace(left[0], pictures=())


def test_the_page_holds_every_table_newest_first_and_refers_to_nothing(runs, script):
    done = script("report", "--storage", runs)
    assert done.returncode == 0, done.stderr
    assert "MLflow could not be reached" in done.stdout, "and the page is there"
    page = (runs / "report.html").read_text()
    assert f"page: {runs / 'report.html'}" in done.stdout
    assert re.findall(r'<section id="([^"]*)"', page) == ["resolution", "shots"]
    assert re.findall(r'href="([^"]*)"', page) == ["#resolution", "#shots"]
    for text in ("0.600 +- 0.141 (2)", "0.250 +- - (1)", "key1", "2025-01-01 12:30", "loss is nan"):
        assert text in page
    assert page.count("Not comparable number by number") == 2 * 2, "one for each paper's table"
    pictures = re.findall(r'src="([^"]*)"', page)
    shown = [report.Picture("", PNG + name).uri for name in (b"resolution", b"curves", b"shots")]
    assert pictures == [*shown, shown[1]]
    assert not re.search(r"<link|<script|url\(|https?://|@import", page)


def test_what_is_incomplete_is_named_with_the_command_that_finishes_it(runs, script):
    (runs / "old").mkdir()
    (runs / "old" / "table.csv").write_text("written before there were records")
    shutil.copytree(runs / "shots", runs / "cut")
    (runs / "cut" / "report.json").write_text("{")
    done = script("report", "--storage", runs, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "resolution: 1 of 2 trials, 1 failed, last score 2025-01-02 12:30 UTC" in done.stdout
    command = "python jobs/sweep_resolution.py --preset smoke"
    assert f"  incomplete; this finishes it: {command}\nshots: 2 of 2 trials, last" in done.stdout
    assert "old: not shown: has no report.json" in done.stdout
    assert "cut: not shown: its report.json cannot be read" in done.stdout
    assert not (runs / "report.html").exists()
    assert script("report", "--storage", runs).returncode == 0
    page = (runs / "report.html").read_text()
    (warning,) = re.findall(r"Incomplete: 1 of 2 trials.*?<code>([^<]*)", page)
    assert warning == command
    assert "<b>old</b>: has no report.json" in page


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_a_storage_without_sweeps_is_refused(place, tmp_path, script):
    done = script("report", "--storage", tmp_path / place)
    assert (done.returncode, done.stdout) == (2, "")
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"error: --storage '{tmp_path / place}' holds no sweep; run one")
    assert list(tmp_path.iterdir()) == []


def test_the_page_goes_to_one_run_of_mlflow(runs, script, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for _ in range(2):
        done = script("report", "--storage", runs)
        assert "MLflow: run report of the experiment raysweep/report" in done.stdout
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raysweep/report")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("report", "FINISHED")
    (artifact,) = client.list_artifacts(run.info.run_id)
    assert (artifact.path, artifact.file_size) == (
        "report.html",
        (runs / "report.html").stat().st_size,
    )


def test_on_an_object_store_the_page_lies_beside_the_sweeps(tmp_path, script, monkeypatch):
    monkeypatch.setenv("RAYSWEEP_SCRATCH", str(tmp_path / "scratch"))
    page = leave(tmp_path, sweep("shots", 0.5, 0.7))
    with serving() as bucket:
        storage = Storage(bucket.uri("runs"))
        for file in (tmp_path / "shots").iterdir():
            storage.upload(file, "shots", file.name)
        assert gather(storage) == ([page], {})
        done = script("report", "--storage", storage.uri)
        assert done.returncode == 0, done.stderr
        with storage.fs.open_input_stream(storage.path("report.html")) as stream:
            assert b"0.600 +- 0.141 (2)" in stream.read()
        assert f"page: {storage.address('report.html')}" in done.stdout
