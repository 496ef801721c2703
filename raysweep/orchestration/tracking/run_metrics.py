"""The numbers of one repeat, as MLflow takes them."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

from mlflow.entities import Metric

from raysweep.orchestration.compute.pipeline import CANDIDATES
from raysweep.orchestration.planning.plan import Trial
from raysweep.orchestration.store.stages import Stage, StageStore

SCORES = ("miou", "foreground_miou", "weighted_miou", "pixel_accuracy")


def metrics_of(trial: Trial, store: StageStore, *, classes: Sequence[str]) -> list[Metric]:
    """Return scores, per-class IoU, learning curves and costs of a finished repeat."""
    now = int(time.time() * 1000)
    found = store.record(trial.chain.evaluate)["metrics"]
    values = {"best/miou": found["miou"]} | {f"test/{key}": found[key] for key in SCORES}
    for name, value in zip(classes, found["per_class"], strict=True):
        if value is not None:
            values[f"iou/{_metric_name(name)}"] = value
    seconds: dict[str, float] = defaultdict(float)
    curves: list[Metric] = []
    for stage in trial.chain:
        seconds[stage.name] += store.record(stage)["cost"]["seconds"]
        curves += _curve(stage, trial, store, now)
    values |= {f"cost/{name}_seconds": cost for name, cost in seconds.items()}
    return [Metric(key, value, now, 0) for key, value in values.items()] + curves


def _curve(stage: Stage, trial: Trial, store: StageStore, now: int) -> Iterator[Metric]:
    """The step axis is images seen in pretraining, else the optimiser steps of the model."""
    name = CANDIDATES if stage.name == "evaluate" else "curve.json"
    place = store.directory(stage) / name
    per_step = trial.experiment.pretrain.images_per_step if stage.name == "pretrain" else 1
    for row in json.loads(place.read_text()) if place.exists() else ():
        for key, value in row.items():
            if key != "step":
                yield Metric(f"{stage.name}/{key}", value, now, int(row["step"]) * per_step)


def _metric_name(text: str) -> str:
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in text)
