"""MLflow: one parent run per sweep, one run per configuration, its repeats beneath it.

Only the driver writes. All that is logged is read from finished stages, so an unreachable or a slow
server costs nothing: the sweep goes on, and the same command given again sends what is missing.
Runs are found by their tags; a sweep that was killed is taken up under the same runs. A run that is
``FINISHED`` has all that it should have.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlflow.entities import Metric, Param

from raysweep.config import digest, to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.evaluate.papers import PaperTable, table_of
from raysweep.orchestration.planning.plan import Plan, Trial
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import write_atomically
from raysweep.orchestration.tracking.client import (
    BATCH,
    END_SECONDS,
    SENDERS,
    Sender,
    attempt,
    comparison_link,
    connect,
    experiment_id,
    lineage_tags,
    tracking_uri,
)
from raysweep.orchestration.tracking.run_metrics import metrics_of

PER_CLASS = "per_class.json"
PER_CLASS_TAG = {"mlflow.loggedArtifacts": json.dumps([{"path": PER_CLASS, "type": "table"}])}
"""Lets the UI show the file as a table."""


@dataclass
class _Run:
    """A run of MLflow, and its status as far as this process knows."""

    id: str
    status: str


class Tracker:
    """Writes one sweep to MLflow, in the background until :meth:`close`.

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
        is_server = tracking_uri(store.storage).startswith("http")
        self._sender = Sender(SENDERS if is_server else 1)
        self._runs: dict[str, _Run] = {}
        self._locks: dict[str, threading.Lock] = {}

    @property
    def problem(self) -> str | None:
        """Why MLflow has not got everything, if so."""
        return self._sender.problem

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
        self._sender.problem = attempt(self._open)

    def log(self, trial: Trial) -> None:
        """Write a finished repeat, unless that has been done; return at once."""
        if self.problem is None:
            self._sender.post(partial(self._log_repeat, trial))

    def close(self, *, files: Mapping[str, Path], status: str) -> None:
        """Write what is missing and end every run.

        A slow server is waited for :data:`END_SECONDS`; what it has not taken by then is left to
        the next call of the same command.

        Args:
            files: name to file, logged with the parent run.
            status: ``FINISHED`` or ``FAILED``.
        """
        until = time.monotonic() + END_SECONDS
        if self.problem is not None or not self._runs:  # perhaps it is back; nothing was to run
            self.open()
        if self.problem is None:
            self._close(files, status, until)

    def _open(self) -> None:
        self.client = connect(self.store.storage)
        self.experiment = experiment_id(self.client, self.store.storage, f"raysweep/{self.name}")
        self._runs = dict(self._stored_runs())
        parent = self._run("sweep", name=self.name, tags={"mlflow.note.content": self._note()})
        if parent.status != "RUNNING":
            self.client.update_run(parent.id, status="RUNNING")
            parent.status = "RUNNING"

    def _stored_runs(self) -> Iterator[tuple[str, _Run]]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment],
                filter_string=f"tags.`raysweep.sweep` = '{self._key}'",
                max_results=500,
                page_token=token,
            )
            for run in page:
                yield run.data.tags["raysweep.run"], _Run(run.info.run_id, run.info.status)
            token = page.token
            if not token:
                return

    def _drop_doubles(self) -> None:
        """Delete runs that were made twice: the answer came too late, the call was repeated."""
        for which, run in list(self._stored_runs()):
            if which in self._runs and run.id != self._runs[which].id:
                self.client.delete_run(run.id)

    def _run(self, which: str, *, name: str, tags: dict[str, str]) -> _Run:
        """Return the run called ``which``, made on first use."""
        if which not in self._runs:
            given = lineage_tags(self.info) | {
                "raysweep.sweep": self._key,
                "raysweep.run": which,
                "raysweep.level": which.split("/")[0],
            }
            run = self.client.create_run(self.experiment, tags=given | tags, run_name=name)
            self._runs[which] = _Run(run.info.run_id, "RUNNING")
        return self._runs[which]

    def _alone(self, which: str) -> threading.Lock:
        """Return the lock of the one who makes or writes a run."""
        return self._locks.setdefault(which, threading.Lock())

    def _configuration(self, trial: Trial) -> _Run:
        """Return the run that a repeat belongs to, open: its summary will change."""
        which = f"configuration/{trial.row}/{trial.column}"
        with self._alone(which):
            parent = {"mlflow.parentRunId": self._runs["sweep"].id}
            run = self._run(which, name=trial.label, tags=parent | self._tags(trial))
            if run.status != "RUNNING":
                self.client.update_run(run.id, status="RUNNING")
                run.status = "RUNNING"
        return run

    def _params(self, trial: Trial) -> list[Param]:
        """The swept axes and the preset, the same keys on every run."""
        params = {"preset": self.preset} | dict(trial.axes)
        return [Param(key, str(value)) for key, value in params.items()]

    def _tags(self, trial: Trial) -> dict[str, str]:
        paper = trial.cell.paper
        first = self.papers[0].id if self.papers else "none"
        return {
            "raysweep.row": trial.row,
            "paper.table": first if paper is None else table_of(paper),
            "paper.cell": paper or "none",
        }

    def _log_repeat(self, trial: Trial) -> None:
        which = f"repeat/{trial.row}/{trial.column}/{trial.repeat}"
        with self._alone(which):
            known = self._runs.get(which)
            if known is not None and known.status == "FINISHED":
                return
            tags = self._tags(trial) | PER_CLASS_TAG
            tags |= {f"raysweep.stage.{name}": key for name, key in trial.keys.items()}
            tags["raysweep.repeat"] = str(trial.repeat)
            tags["mlflow.parentRunId"] = self._configuration(trial).id
            run = self._run(which, name=f"repeat {trial.repeat}", tags=tags)
            self._log_results(run.id, trial)
            self._log_files(run.id, trial)
            self._end(run, "FINISHED")

    def _end(self, run: _Run, status: str) -> None:
        self.client.set_terminated(run.id, status)
        run.status = status

    def _log_results(self, run: str, trial: Trial) -> None:
        metrics = metrics_of(trial, self.store, classes=self.info.classes)
        for start in range(0, len(metrics), BATCH):
            params = [] if start else self._params(trial)
            self.client.log_batch(run, metrics=metrics[start : start + BATCH], params=params)

    def _log_files(self, run: str, trial: Trial) -> None:
        record = self.store.record(trial.chain.evaluate)
        self.client.log_artifact(run, str(self.store.directory(trial.chain.evaluate) / "grid.png"))
        self.client.log_dict(run, to_dict(trial.experiment), "config.json")
        scores = zip(self.info.classes, record["metrics"]["per_class"], strict=True)
        table = {"columns": ["class", "iou"], "data": [list(line) for line in scores]}
        self.client.log_dict(run, table, PER_CLASS)

    def _close(self, files: Mapping[str, Path], status: str, until: float) -> None:
        cells: dict[tuple[str, str], list[Trial]] = defaultdict(list)
        for trial in self.plan.trials:
            if self.store.done(trial.chain.evaluate):
                self.log(trial)
                cells[trial.configuration].append(trial)
        if not self._sender.settle(until):
            return
        for trials in cells.values():
            self._sender.post(partial(self._summarise, trials, status))
        parent = self._runs["sweep"]
        for path in filter(Path.exists, files.values()):
            self._sender.post(partial(self.client.log_artifact, parent.id, str(path)))
        if not self._sender.settle(until):
            return
        for which, run in self._runs.items():
            if run.status == "RUNNING":
                ends = "KILLED" if which.startswith("repeat") else status
                self._sender.post(partial(self._end, run, ends))
        self._sender.post(self._drop_doubles)
        if self._sender.settle(until) and status == "FINISHED":
            receipt = {
                "sweep": self.plan.key,
                "uri": tracking_uri(self.store.storage),
                "experiment": self.experiment,
            }
            write_atomically(self._receipt, json.dumps(receipt).encode())

    def _summarise(self, trials: list[Trial], status: str) -> None:
        known = self._runs.get(f"configuration/{trials[0].row}/{trials[0].column}")
        if known is not None and known.status == "FINISHED":
            return
        run = self._configuration(trials[0])
        values = [self.store.record(t.chain.evaluate)["metrics"]["miou"] for t in trials]
        now = int(time.time() * 1000)
        summary = {"best/miou": statistics.fmean(values), "best/n": float(len(values))}
        if len(values) > 1:
            summary["best/miou_std"] = statistics.stdev(values)
        metrics = [Metric(key, value, now, 0) for key, value in summary.items()]
        self.client.log_batch(run.id, metrics=metrics, params=self._params(trials[0]))
        picture = self.store.directory(trials[0].chain.evaluate) / "grid.png"
        self.client.log_artifact(run.id, str(picture))
        self._end(run, status)

    def _note(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.info.counts.items())
        return (
            f"**{self.name}** on *{self.info.name}* ({counts}; fingerprint "
            f"`{self.info.fingerprint}`)\n\nThe table and the figure are artifacts of this run. "
            "Compare configurations: filter `tags.raysweep.level = 'configuration'` and chart "
            "`best/miou` against the params."
        )
