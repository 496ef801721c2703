"""The MLflow run of one training, written while it goes on: a representation, or a student."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlflow.entities import Metric, Param

from raysweep.config import to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.experiment import Experiment
from raysweep.orchestration.compute.worker import Curve, Progress
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.terminal import Throttle
from raysweep.orchestration.tracking.client import (
    BATCH,
    END_SECONDS,
    Sender,
    connect,
    experiment_id,
    lineage_tags,
)

SEND_SECONDS = 10.0
LEAVE_SECONDS = 15.0
"""Most seconds that the end of a training that failed waits for MLflow."""


@dataclass(frozen=True)
class About:
    """What is special to the runs of one kind of training.

    Attributes:
        name: of the run.
        first: a metric that every window has.
        images_per_step: what the step axis counts.
        params: short names of settings to their values.
    """

    name: str
    first: str
    images_per_step: int
    params: Mapping[str, Any]


class LiveRun:
    """One MLflow run of one training, named after its stage.

    A resumed training is taken up under the same run; points that are there are not sent again.
    All is sent in the background. An unreachable or too slow server ends the writing, not the
    training: :attr:`problem` says what happened.
    """

    def __init__(
        self,
        store: StageStore,
        stage: Stage,
        experiment: Experiment,
        *,
        info: DatasetInfo,
        preset: str,
        about: About,
    ) -> None:
        self.store, self.stage, self.experiment = store, stage, experiment
        self.info, self.preset, self.about = info, preset, about
        self.sent: set[int] = set()
        self.waiting: dict[int, Mapping[str, float]] = {}
        self.throttle = Throttle(SEND_SECONDS)
        self.sender = Sender()
        self.sender.post(self._open)

    @property
    def problem(self) -> str | None:
        """Why MLflow has not got everything, if so."""
        return self.sender.problem

    def log(self, progress: Progress) -> None:
        """Send the metrics of a window, several windows at a time; the step axis is images seen."""
        self.waiting[progress.step] = progress.metrics
        if self.sender.idle and self.throttle.ready():
            self.sender.post(partial(self._send, self.waiting))
            self.waiting = {}

    def finish(self, curve: Curve) -> None:
        """Send what was not sent while the training went on, and the rest; end the run.

        A slow server is waited for :data:`~raysweep.orchestration.tracking.client.END_SECONDS`.
        """
        rows = {
            int(row["step"]): {key: value for key, value in row.items() if key != "step"}
            for row in curve
        }
        self.sender.post(partial(self._send, rows))
        self.sender.post(self.finishing)
        self._end("FINISHED", END_SECONDS)

    def finishing(self) -> None:
        """Send what the run has beside its curve."""

    def close(self, status: str) -> None:
        """End the run of a training that did not: ``FAILED``."""
        self._end(status, LEAVE_SECONDS)

    def _end(self, status: str, seconds: float) -> None:
        self.sender.post(lambda: self.client.set_terminated(self.run, status))
        self.sender.settle(time.monotonic() + seconds)

    def _open(self) -> None:
        kind = self.stage.name
        self.client = connect(self.store.storage)
        where = experiment_id(self.client, self.store.storage, f"raysweep/{kind}")
        found = self.client.search_runs(
            [where], filter_string=f"tags.`raysweep.stage.{kind}` = '{self.stage.key}'"
        )
        if found:
            self.run = str(found[0].info.run_id)
            self.client.update_run(self.run, status="RUNNING")
            history = self.client.get_metric_history(self.run, self.about.first)
            self.sent = {int(point.step) for point in history}
            return
        tags = lineage_tags(self.info) | {f"raysweep.stage.{kind}": self.stage.key}
        name = f"{self.about.name} {self.stage.key[:8]}"
        self.run = str(self.client.create_run(where, tags=tags, run_name=name).info.run_id)
        params = {f"{kind}.{key}": value for key, value in self.about.params.items()}
        params["preset"] = self.preset
        self.client.log_batch(
            self.run, params=[Param(key, str(value)) for key, value in params.items()]
        )
        self.client.log_dict(self.run, to_dict(self.experiment), "config.json")

    def _send(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        now, batch = int(time.time() * 1000), self.about.images_per_step
        points = [
            Metric(f"{self.stage.name}/{key}", value, now, step * batch)
            for step, metrics in rows.items()
            if step * batch not in self.sent
            for key, value in metrics.items()
        ]
        for start in range(0, len(points), BATCH):
            self.client.log_batch(self.run, metrics=points[start : start + BATCH])
        self.sent |= {step * batch for step in rows}


class PretrainingRun(LiveRun):
    """One MLflow run of ``jobs/pretrain_*.py``, with sample grids if there are any."""

    def __init__(
        self,
        store: StageStore,
        stage: Stage,
        experiment: Experiment,
        *,
        info: DatasetInfo,
        preset: str,
    ) -> None:
        config = experiment.pretrain
        params = {
            "method": config.method,
            "resolution": config.images_px,
            "kimg": config.steps_in_all * config.images_per_step / 1000,
            "batch": config.images_per_step,
            "lr": config.lr if config.contrastive else config.gan.lr,
            "seed": config.seed,
        }
        about = About(
            name=f"{config.method} {config.images_px} px",
            first="pretrain/loss" if config.contrastive else "pretrain/loss/generator",
            images_per_step=config.images_per_step,
            params=params,
        )
        super().__init__(store, stage, experiment, info=info, preset=preset, about=about)

    def finishing(self) -> None:
        """Send the sample grids."""
        for picture in sorted(self.store.directory(self.stage).glob("samples-*.png")):
            self.client.log_artifact(self.run, str(picture), "samples")


class DistillRun(LiveRun):
    """One MLflow run of ``jobs/distill.py``, with the student's scores."""

    def __init__(
        self,
        store: StageStore,
        stage: Stage,
        experiment: Experiment,
        *,
        info: DatasetInfo,
        preset: str,
        evaluation: Stage,
    ) -> None:
        config, self.evaluation = experiment.student, evaluation
        names = ("network", "resolution", "batch", "epochs", "steps", "lr", "loss", "seed")
        about = About(
            name=f"{config.network} {config.resolution} px",
            first="distill/loss",
            images_per_step=config.batch,
            params={name: getattr(config, name) for name in names},
        )
        super().__init__(store, stage, experiment, info=info, preset=preset, about=about)

    def finishing(self) -> None:
        """Send the scores, the picture of predictions and how the training went."""
        scores = self.store.record(self.evaluation)["metrics"]
        went = self.store.record(self.stage)["metrics"]
        values = {
            f"evaluate/{key}": value
            for key, value in scores.items()
            if isinstance(value, int | float)
        }
        values |= {f"distill/{key}": went[key] for key in ("waiting_share", "first_batch_seconds")}
        values |= {"distill/bad_rows": len(went["bad_rows"]), "best/miou": scores["miou"]}
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run, metrics=[Metric(key, value, now, 0) for key, value in values.items()]
        )
        self.client.set_tag(self.run, "raysweep.stage.evaluate", self.evaluation.key)
        picture = self.store.directory(self.evaluation) / "grid.png"
        self.client.log_artifact(self.run, str(picture), "predictions")
