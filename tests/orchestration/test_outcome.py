"""What a small sweep leaves behind, computed in this process."""

from __future__ import annotations

import json
import shutil
import statistics
from types import SimpleNamespace

import mlflow
import pytest

from raysweep.config import ConfigError, override
from raysweep.evaluate.paper_tables import LAGM_FIGURE_4, LAGM_TABLE_2
from raysweep.evaluate.report import html_of_all
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.pipeline import CANDIDATES, compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.planning.plan import Cell, Plan, make_plan
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.outcome import announce, write_outcome
from raysweep.orchestration.sweeps.reporting import gather
from raysweep.orchestration.tracking.tracker import Tracker
from raysweep.presets import smoke

RGB = {"pretrain.method": "rgb"}
BASE = override(smoke(), RGB | {"fit.steps": 8, "fit.checkpoints": 4, "fit.batch": 2})
CELLS = [
    *(Cell("short", str(shots), {"fit.steps": 4, "data.shots": shots}) for shots in (1, 2)),
    *(
        Cell(
            "long", str(shots), {"data.shots": shots}, "lagm_t2[blocks=All]" if shots == 2 else None
        )
        for shots in (1, 2, 4)
    ),
]
REPEATS = 2


def page(**changes):
    page = {
        "ROW_AXIS": "method",
        "COLUMN_AXIS": "labelled images",
        "BASELINES": {"short": "rgb"},
        "PAPERS": (LAGM_FIGURE_4, LAGM_TABLE_2),
        "FIGURE": "lines",
        "CURVES": ("long", "a row of another preset"),
        "repeat": lambda index: {"fit.seed": index},
    }
    return SimpleNamespace(**page | changes)


def plan_of(space, dataset, cells=CELLS):
    return make_plan(
        space, BASE, cells=cells, repeats=REPEATS, fingerprint=dataset.info.fingerprint
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return store, dataset and plan; of ``short`` one cell has not been run."""
    storage = Storage(str(tmp_path_factory.mktemp("runs")))
    dataset = opened(BASE.data, storage.uri)
    run_with = Run(StageStore(storage), dataset, device_here(), lambda _: None)
    plan = plan_of(page(), dataset)
    for trial in plan.trials:
        if trial.configuration != ("short", "2"):
            compute(trial.experiment, run_with)
    return run_with.store, dataset, plan


def outcome_of(finished, directory, **changes):
    store, dataset, plan = finished
    return write_outcome(
        directory, plan, page(**changes), store, info=dataset.info, preset="smoke", failures={}
    )


def test_every_candidate_of_a_held_out_evaluation_is_kept(finished):
    store, _, plan = finished
    trial = next(trial for trial in plan.trials if trial.row == "long")
    stage = trial.chain.evaluate
    rows = json.loads((store.directory(stage) / CANDIDATES).read_text())
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    found = store.record(stage)["metrics"]
    best = max(rows, key=lambda row: row["val_miou"])
    assert best == {"step": found["candidate"], "val_miou": found["val_miou"]}


def test_five_folds_look_at_no_validation_split_and_keep_none(finished):
    store, dataset, plan = finished
    folds = override(plan.trials[-1].experiment, {"evaluate.protocol": "five_folds"})
    compute(folds, Run(store, dataset, device_here(), lambda _: None))
    left = store.directory(chain_of(folds, dataset.info.fingerprint).evaluate)
    assert (left / "grid.png").exists()
    assert not (left / CANDIDATES).exists()


def test_files_show_curves_costs_and_every_paper(finished, tmp_path):
    outcome = outcome_of(finished, tmp_path)
    names = ["table.csv", "table.md", "figure.png", "curves.png", "predictions.png"]
    names += ["report.html", "report.json"]
    assert sorted(outcome.files) == sorted(names)
    assert all(path.stat().st_size > 0 for path in outcome.files.values())
    html, markdown = (outcome.files[name].read_text() for name in ("report.html", "table.md"))
    assert html.count("data:image/png") == 3  # figure, predictions, curves
    for text in (html, markdown):
        assert text.index("Figure 4") < text.index("Table 2")
        assert "What a fit costs" in text
        assert "33.56 +- 0.17" in text


def test_a_sweep_that_is_killed_at_its_beginning_can_be_reported(finished, tmp_path):
    store, dataset, plan = finished
    announce(tmp_path / "killed", plan, page(), store, info=dataset.info, preset="smoke")
    (found,), untold = gather(Storage(str(tmp_path)))
    assert (found.name, found.trials, found.left, untold) == ("killed", 10, REPEATS, {})
    assert found.table == outcome_of(finished, tmp_path / "later").table
    assert html_of_all([found], title="all").count("data:image/png") == 0


def test_costs_are_means_over_the_fits_that_were_run(finished, tmp_path):
    store, _, plan = finished
    outcome = outcome_of(finished, tmp_path)
    costs = outcome.files["table.md"].read_text().partition("What a fit costs")[2]
    for row, fits in (("short", 2), ("long", 6)):
        seconds = statistics.fmean(
            store.record(trial.chain.fit)["cost"]["seconds"]
            for trial in plan.trials
            if trial.row == row and store.done(trial.chain.fit)
        )
        assert f"| {row} | {fits} | {seconds:.1f} |" in costs
    assert "| short | 2 |" in costs.partition("1.00 |")[0], (
        "the first row is what others are beside"
    )


def test_a_fit_that_two_columns_score_is_counted_once(finished, tmp_path):
    store, dataset, _ = finished
    evaluated = [
        Cell("long", name, {"data.shots": 4, "evaluate.absent": name}) for name in ("zero", "skip")
    ]
    plan = plan_of(page(FIGURE="heat map"), dataset, evaluated)
    outcome = outcome_of((store, dataset, plan), tmp_path, BASELINES={}, FIGURE="heat map")
    assert "| long | 2 |" in outcome.files["table.md"].read_text()


def test_results_without_candidates_are_shown_without_a_curve(finished, tmp_path):
    store, dataset, _ = finished
    shutil.copytree(store.storage.local("stages"), tmp_path / "old" / "stages")
    for left in (tmp_path / "old").rglob(CANDIDATES):
        left.unlink()
    old = StageStore(Storage(str(tmp_path / "old")))
    outcome = outcome_of((old, dataset, finished[2]), tmp_path / "sweep")
    assert "curves.png" not in outcome.files
    assert not (tmp_path / "sweep" / "curves.png").exists()
    assert outcome.table == outcome_of(finished, tmp_path / "new").table


def test_a_page_without_curves_draws_none(finished, tmp_path):
    assert "curves.png" not in outcome_of(finished, tmp_path, CURVES=()).files


def test_lines_need_columns_that_are_numbers(finished):
    cells = [Cell("long", "direct", {})]
    with pytest.raises(ConfigError, match=r"FIGURE = 'lines': column 'direct'.*'heat map'"):
        plan_of(page(), finished[1], cells)
    assert plan_of(page(FIGURE="heat map"), finished[1], cells).columns == ("direct",)


def test_mlflow_gets_candidates_over_steps_and_the_table_of_each_cell(finished):
    store, dataset, plan = finished
    papers = (LAGM_FIGURE_4, LAGM_TABLE_2)
    plan = Plan(tuple(t for t in plan.trials if t.row == "long" and t.repeat == 0))
    store.storage.local("outcome").mkdir()
    tracker = Tracker("outcome", plan, store, papers=papers, info=dataset.info, preset="smoke")
    tracker.open()
    tracker.close(files={}, status="FINISHED")
    assert tracker.problem is None
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store.storage.local('mlflow.db')}")
    experiment = client.get_experiment_by_name("raysweep/outcome").experiment_id
    runs = client.search_runs([experiment], "tags.`raysweep.level` = 'repeat'")
    tables = {run.data.params["data.shots"]: run.data.tags["paper.table"] for run in runs}
    assert tables == {"1": "lagm_fig4", "2": "lagm_t2", "4": "lagm_fig4"}
    curve = client.get_metric_history(runs[0].info.run_id, "evaluate/val_miou")
    assert [point.step for point in curve] == [2, 4, 6, 8]
    assert all(0 <= point.value <= 1 for point in curve)


def test_changed_batch_statistics_are_said_beside_the_table(finished, tmp_path):
    store, dataset, plan = finished
    stage = plan.trials[0].chain.fit
    place = store.directory(stage) / "stage.json"
    plain = place.read_text()
    record = json.loads(plain)
    record["metrics"] |= {"micro_batches": 4, "batch_statistics": "of 1/4 of a batch"}
    place.write_text(json.dumps(record))
    try:
        outcome = outcome_of(finished, tmp_path)
    finally:
        place.write_text(plain)
    (note,) = outcome.notes
    assert note.startswith(f"{plan.trials[0].row}: {stage} ran out of memory")
    assert "batch statistics are of 1/4 of a batch" in note
    assert note in outcome.files["table.md"].read_text()
    assert note in outcome.files["report.html"].read_text()
