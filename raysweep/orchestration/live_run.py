"""The MLflow run of one pretraining, written while the training goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mlflow.entities import Metric

from raysweep.config import to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.orchestration.mlflow_client import (
    BATCH,
    attempt,
    connect,
    experiment_id,
    lineage_tags,
)
from raysweep.orchestration.stages import Stage, StageStore
from raysweep.orchestration.terminal import Throttle
from raysweep.orchestration.worker import Curve, Progress
from raysweep.presets import Experiment

SEND_SECONDS = 10.0


class PretrainingRun:
    """One MLflow run of ``jobs/pretrain_*.py``.

    A resumed training is taken up under the same run; points that are there are not sent again.
    An unreachable server ends the writing, not the training: :attr:`problem` says what happened.
    """

    def __init__(
        self,
        store: StageStore,
        stage: Stage,
        experiment: Experiment,
        *,
        info: DatasetInfo,
        preset: str,
    ) -> None:
        self.store, self.stage, self.experiment = store, stage, experiment
        self.info, self.preset = info, preset
        self.sent: set[int] = set()
        self.waiting: dict[int, Mapping[str, float]] = {}
        self.throttle = Throttle(SEND_SECONDS)
        self.problem = attempt(self._open)

    def log(self, progress: Progress) -> None:
        """Send the metrics of a window, several windows at a time; the step axis is images seen."""
        self.waiting[progress.step] = progress.metrics
        if self.problem is None and self.throttle.ready():
            self.problem = attempt(lambda: self._send(self.waiting))
            self.waiting = {}

    def finish(self, curve: Curve) -> None:
        """Send what was not sent while the training went on, sample grids, and end the run."""
        rows = {
            int(row["step"]): {key: value for key, value in row.items() if key != "step"}
            for row in curve
        }
        if self.problem is None:
            self.problem = attempt(lambda: self._send(rows))
        if self.problem is None:
            self.problem = attempt(self._show_samples)
        self.close("FINISHED")

    def close(self, status: str) -> None:
        """End the run with ``FINISHED`` or ``FAILED``."""
        if self.problem is None:
            self.problem = attempt(lambda: self.client.set_terminated(self.run, status))

    def _open(self) -> None:
        self.client = connect(self.store.storage)
        where = experiment_id(self.client, self.store.storage, "raysweep/pretrain")
        found = self.client.search_runs(
            [where], filter_string=f"tags.`raysweep.stage.pretrain` = '{self.stage.key}'"
        )
        if found:
            self.run = str(found[0].info.run_id)
            self.client.update_run(self.run, status="RUNNING")
            first = (
                "pretrain/loss"
                if self.experiment.pretrain.contrastive
                else "pretrain/loss/generator"
            )
            history = self.client.get_metric_history(self.run, first)
            self.sent = {int(point.step) for point in history}
            return
        config = self.experiment.pretrain
        name = f"{config.method} {config.images_px} px {self.stage.key[:8]}"
        tags = lineage_tags(self.info) | {"raysweep.stage.pretrain": self.stage.key}
        self.run = str(self.client.create_run(where, tags=tags, run_name=name).info.run_id)
        params = {
            "method": config.method,
            "resolution": config.images_px,
            "kimg": config.steps_in_all * config.images_per_step / 1000,
            "batch": config.images_per_step,
            "lr": config.lr if config.contrastive else config.gan.lr,
            "seed": config.seed,
        }
        for key, value in params.items():
            self.client.log_param(self.run, f"pretrain.{key}", value)
        self.client.log_param(self.run, "preset", self.preset)
        self.client.log_dict(self.run, to_dict(self.experiment), "config.json")

    def _show_samples(self) -> None:
        for picture in sorted(self.store.directory(self.stage).glob("samples-*.png")):
            self.client.log_artifact(self.run, str(picture), "samples")

    def _send(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        now, batch = int(time.time() * 1000), self.experiment.pretrain.images_per_step
        points = [
            Metric(f"pretrain/{key}", value, now, step * batch)
            for step, metrics in rows.items()
            if step * batch not in self.sent
            for key, value in metrics.items()
        ]
        for start in range(0, len(points), BATCH):
            self.client.log_batch(self.run, metrics=points[start : start + BATCH])
        self.sent |= {step * batch for step in rows}
