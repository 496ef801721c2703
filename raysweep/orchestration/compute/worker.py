"""The one training loop: restore, iterate, step, reduce, report, checkpoint.

It serves every learner, in one process or as one of the workers of a Ray Train run. A kill at any
moment loses at most the steps since the last checkpoint, and what follows a resume is bit for bit
what would have followed without it (on CPU). A process that is told to end saves first.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from raysweep import collective
from raysweep.data.dataset import Dataset
from raysweep.learner import Learner
from raysweep.orchestration.compute.notice import LeftError, Notice
from raysweep.orchestration.store.stages import StageStore

BatchT = TypeVar("BatchT")
CHECKPOINT_SECONDS = float(os.environ.get("RAYSWEEP_CHECKPOINT_SECONDS", "20"))
"""Least time between two checkpoints; how a stage is run, so not part of any config."""

LOG_EVERY = 10
"""Steps per window of the learning curve."""

Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Progress:
    """How far a stage is: ``step`` of ``steps``, with the metrics of the last window."""

    stage: str
    step: int
    steps: int
    metrics: dict[str, float]


Report = Callable[[Progress], None]


Judge = Callable[[int, float], None]
"""Hears the validation mIoU of a fit's candidates on the way; may end the process."""


@dataclass(frozen=True)
class Run:
    """What a stage needs to run, and nothing that changes its result."""

    store: StageStore
    dataset: Dataset
    device: torch.device
    report: Report
    judge: Judge | None = None


class Checkpoints(Protocol):
    """Where the loop keeps its state; a stage's workspace is one."""

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the stored state."""

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the stored state, if any."""


def run(
    learner: Learner[BatchT],
    batch_at: Callable[[int], BatchT],
    *,
    name: str,
    steps: int,
    checkpoints: Checkpoints,
    report: Report,
    log_every: int = LOG_EVERY,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    after_step: Callable[[int], None] | None = None,
    measure: Callable[[int], dict[str, float]] | None = None,
) -> Curve:
    """Train to ``steps`` and return the learning curve.

    Args:
        learner: what is trained.
        batch_at: step to batch; a pure function, so that a resumed run sees the same batches.
        name: stage name for reports and errors.
        steps: total number of steps, those before a resume included.
        checkpoints: where state is kept.
        report: receives the progress after every window of ``log_every`` steps.
        log_every: steps per window; the curve holds each window's means.
        checkpoint_seconds: least time between two checkpoints; they fall on ends of windows.
        after_step: called with the number of finished steps.
        measure: finished steps to further metrics of the curve; called at the ends of windows.

    Returns:
        One row per window: ``{"step": finished steps, metric: mean over window and workers}``.

    Raises:
        FloatingPointError: a metric is not finite; names stage, step and metric.
        LeftError: the process was told to end; the state is stored.
    """
    start, curve = _restore(learner, checkpoints)
    window: list[dict[str, torch.Tensor]] = []
    saved_at = time.monotonic()
    with Notice() as notice:
        for done in range(start + 1, steps + 1):
            window.append(learner.step(batch_at(done - 1)))
            if after_step is not None:
                after_step(done)
            if done % log_every and done != steps:
                continue
            metrics = _reduce(window) | (measure(done) if measure is not None else {})
            _require_finite(metrics, name=name, step=done)
            window = []
            curve.append({"step": done, **metrics})
            leaving = notice.given()
            if leaving or time.monotonic() - saved_at >= checkpoint_seconds:
                state = {"learner": learner.state_dict(), "step": done, "curve": curve}
                checkpoints.save_checkpoint(state)
                saved_at = time.monotonic()
            if leaving:  # without a report: who receives it may have left
                raise LeftError(f"{name}: told to end, saved at step {done}")
            report(Progress(name, done, steps, metrics))
    return curve


def _restore(learner: Learner[BatchT], checkpoints: Checkpoints) -> tuple[int, Curve]:
    state = checkpoints.load_checkpoint()
    if state is None:
        return 0, []
    learner.load_state_dict(state["learner"])
    return state["step"], state["curve"]


def _reduce(window: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    names = dict.fromkeys(key for row in window for key in row)  # some come every few steps only
    means = {
        key: torch.stack([row[key].float() for row in window if key in row]).mean() for key in names
    }
    return {key: float(collective.mean(value)) for key, value in means.items()}


def _require_finite(metrics: dict[str, float], *, name: str, step: int) -> None:
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name}: {key} is {value} at step {step}; lower the learning rate "
                "or use precision fp32"
            )
