"""MLflow: one parent run per sweep, one run per configuration, its repeats beneath it.

Only the driver writes. All that is logged is read from finished stages, so an unreachable server
costs nothing: the sweep goes on, and the same command given again sends what is missing. Runs are
found by their tags; a sweep that was killed is taken up under the same runs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from raysweep.config import digest, to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.evaluate.papers import PaperTable, table_of
from raysweep.orchestration.mlflow_client import (
    BATCH,
    attempt,
    comparison_link,
    connect,
    experiment_id,
    lineage_tags,
    tracking_uri,
)
from raysweep.orchestration.pipeline import CANDIDATES
from raysweep.orchestration.plan import Plan, Trial
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import write_atomically


class Tracker:
    """Writes one sweep to MLflow.

    Args:
        name: name of the sweep; the experiment is ``raysweep/<name>``.
        plan: its trials; a search replaces it when it knows the best ones.
        papers: the printed tables that are shown beside.
        store: where results are read from.
        info: the dataset, whose fingerprint and counts go with every run.
        preset: name of the preset.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        store: StageStore,
        *,
        papers: tuple[PaperTable, ...],
        info: DatasetInfo,
        preset: str,
    ) -> None:
        self.name, self.plan, self.store = name, plan, store
        self.papers = papers
        self.info, self.preset = info, preset
        self._key = digest([name, store.storage.uri])  # another storage's runs are not ours
        self.problem: str | None = None
        self._runs: dict[str, Any] = {}

    @property
    def _receipt(self) -> Path:
        """A file that says which results have been written where."""
        return self.store.storage.local(self.name, "tracked.json")

    def is_up_to_date(self) -> bool:
        """Return whether all of this has been written, as far as the receipt tells."""
        found, uri = self._received(), tracking_uri(self.store.storage)
        return (found.get("sweep"), found.get("uri")) == (self.plan.key, uri)

    @property
    def link(self) -> str | None:
        """The page that compares the configurations, once everything has been written."""
        if not self.is_up_to_date():
            return None
        receipt = self._received()
        return comparison_link(receipt["uri"], receipt["experiment"])

    def _received(self) -> dict[str, str]:
        try:
            found = json.loads(self._receipt.read_text())
        except (FileNotFoundError, ValueError):  # there is none, or a full disk cut it short
            return {}
        return dict(found)

    def open(self) -> None:
        """Connect, find the runs of an earlier call and start the parent run."""
        self._attempt(self._open)

    def log(self, trial: Trial) -> None:
        """Write a finished repeat, unless that has been done."""
        self._attempt(lambda: self._log_repeat(trial))

    def close(self, *, files: Mapping[str, Path], status: str) -> None:
        """Write what is missing and end every run.

        Args:
            files: name to file, logged with the parent run.
            status: ``FINISHED`` or ``FAILED``.
        """
        if self.problem is not None or not self._runs:  # perhaps it is back; nothing was to run
            self.problem = None
            self.open()
        self._attempt(lambda: self._close(files, status))

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.problem is None:
            self.problem = attempt(action)

    def _open(self) -> None:
        self.client = connect(self.store.storage)
        self.experiment = experiment_id(self.client, self.store.storage, f"raysweep/{self.name}")
        self._runs = self._earlier_runs()
        parent = self._run("sweep", name=self.name, parent=None)
        self.client.set_tag(parent, "mlflow.note.content", self._note())

    def _earlier_runs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment],
                filter_string=f"tags.`raysweep.sweep` = '{self._key}'",
                max_results=500,
                page_token=token,
            )
            for run in page:
                found[run.data.tags["raysweep.run"]] = run
            token = page.token
            if not token:
                return found

    def _run(self, which: str, *, name: str, parent: str | None) -> str:
        """Return the id of the run called ``which``, made on first use."""
        known = self._runs.get(which)
        if known is not None:
            run_id = str(known.info.run_id)
            if known.info.status != "RUNNING" and not known.data.tags.get("raysweep.logged"):
                self.client.update_run(run_id, status="RUNNING")
            return run_id
        tags = lineage_tags(self.info) | {
            "raysweep.sweep": self._key,
            "raysweep.run": which,
            "raysweep.level": which.split("/")[0],
        }
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment, tags=tags, run_name=name)
        self._runs[which] = run
        return str(run.info.run_id)

    def _configuration(self, trial: Trial) -> str:
        which = f"configuration/{trial.row}/{trial.column}"
        fresh = which not in self._runs
        parent = self._run("sweep", name=self.name, parent=None)
        run = self._run(which, name=trial.label, parent=parent)
        if fresh:
            self._describe(run, trial)
        return run

    def _describe(self, run: str, trial: Trial) -> None:
        """Params are the swept axes and the preset, the same keys on every run."""
        params = {"preset": self.preset} | dict(trial.axes)
        tags = {
            "raysweep.row": trial.row,
            "paper.table": self._paper_table(trial),
            "paper.cell": trial.cell.paper or "none",
        }
        self.client.log_batch(
            run,
            params=[Param(key, str(value)) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def _paper_table(self, trial: Trial) -> str:
        if trial.cell.paper is not None:
            return table_of(trial.cell.paper)
        return self.papers[0].id if self.papers else "none"

    def _log_repeat(self, trial: Trial) -> None:
        which = f"repeat/{trial.row}/{trial.column}/{trial.repeat}"
        known = self._runs.get(which)
        if known is not None and known.data.tags.get("raysweep.logged"):
            return
        parent = self._configuration(trial)
        run = self._run(which, name=f"repeat {trial.repeat}", parent=parent)
        self._describe(run, trial)
        self._log_results(run, trial)
        self._log_files(run, trial)
        self.client.set_tag(run, "raysweep.logged", "1")
        self.client.set_terminated(run, "FINISHED")
        self._runs[which] = self.client.get_run(run)

    def _log_results(self, run: str, trial: Trial) -> None:
        now = int(time.time() * 1000)
        record = self.store.record(trial.chain.evaluate)
        metrics = [Metric("best/miou", record["metrics"]["miou"], now, 0)]
        for key in ("miou", "foreground_miou", "weighted_miou", "pixel_accuracy"):
            metrics.append(Metric(f"test/{key}", record["metrics"][key], now, 0))
        for name, value in zip(self.info.classes, record["metrics"]["per_class"], strict=True):
            if value is not None:
                metrics.append(Metric(f"iou/{_metric_name(name)}", value, now, 0))
        seconds: dict[str, float] = defaultdict(float)
        for stage in trial.chain:
            seconds[stage.name] += self.store.record(stage)["cost"]["seconds"]
            metrics += self._curve(stage, trial, now)
        metrics += [Metric(f"cost/{name}_seconds", cost, now, 0) for name, cost in seconds.items()]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run, metrics=metrics[start : start + BATCH])
        tags = {f"raysweep.stage.{name}": key for name, key in trial.keys.items()}
        tags |= {"raysweep.repeat": str(trial.repeat)}
        self.client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])

    def _curve(self, stage: Any, trial: Trial, now: int) -> list[Any]:
        """The step axis is images seen in pretraining, else the optimiser steps of the model."""
        name = CANDIDATES if stage.name == "evaluate" else "curve.json"
        place = self.store.directory(stage) / name
        if not place.exists():
            return []
        per_step = trial.experiment.pretrain.images_per_step if stage.name == "pretrain" else 1
        return [
            Metric(f"{stage.name}/{key}", value, now, int(row["step"]) * per_step)
            for row in json.loads(place.read_text())
            for key, value in row.items()
            if key != "step"
        ]

    def _log_files(self, run: str, trial: Trial) -> None:
        record = self.store.record(trial.chain.evaluate)
        self.client.log_artifact(run, str(self.store.directory(trial.chain.evaluate) / "grid.png"))
        self.client.log_dict(run, to_dict(trial.experiment), "config.json")
        table = {"class": list(self.info.classes), "iou": list(record["metrics"]["per_class"])}
        self.client.log_table(run, table, "per_class.json")

    def _close(self, files: Mapping[str, Path], status: str) -> None:
        cells: dict[tuple[str, str], list[Trial]] = defaultdict(list)
        for trial in self.plan.trials:
            if self.store.done(trial.chain.evaluate):
                self._log_repeat(trial)
                cells[trial.configuration].append(trial)
        for trials in cells.values():
            self._summarise(trials)
        parent = self._run("sweep", name=self.name, parent=None)
        for path in files.values():
            if path.exists():
                self.client.log_artifact(parent, str(path))
        for which, run in self._runs.items():
            if self.client.get_run(run.info.run_id).info.status == "RUNNING":
                done = which == "sweep" or which.startswith("configuration")
                self.client.set_terminated(run.info.run_id, status if done else "KILLED")
        if status == "FINISHED":
            receipt = {
                "sweep": self.plan.key,
                "uri": tracking_uri(self.store.storage),
                "experiment": self.experiment,
            }
            write_atomically(self._receipt, json.dumps(receipt).encode())

    def _summarise(self, trials: list[Trial]) -> None:
        values = [self.store.record(t.chain.evaluate)["metrics"]["miou"] for t in trials]
        run = self._configuration(trials[0])
        now = int(time.time() * 1000)
        summary = {"best/miou": statistics.fmean(values), "best/n": float(len(values))}
        if len(values) > 1:
            summary["best/miou_std"] = statistics.stdev(values)
        self.client.log_batch(run, metrics=[Metric(k, v, now, 0) for k, v in summary.items()])
        picture = self.store.directory(trials[0].chain.evaluate) / "grid.png"
        self.client.log_artifact(run, str(picture))

    def _note(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.info.counts.items())
        return (
            f"**{self.name}** on *{self.info.name}* ({counts}; fingerprint "
            f"`{self.info.fingerprint}`)\n\nThe table and the figure are artifacts of this run. "
            "Compare configurations: filter `tags.raysweep.level = 'configuration'` and chart "
            "`best/miou` against the params."
        )


def _metric_name(text: str) -> str:
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in text)
