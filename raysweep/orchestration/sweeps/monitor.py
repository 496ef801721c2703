"""What the terminal shows while a sweep runs: done, running, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console

from raysweep.orchestration.compute.worker import Progress
from raysweep.orchestration.planning.estimate import NAMES, Clock
from raysweep.orchestration.planning.plan import Trial
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.terminal import Throttle, clock


@dataclass
class _Share:
    """Estimated seconds of one distinct stage, and the part of it that is done."""

    seconds: float
    done: float = 0.0


class Monitor:
    """Prints a line every few seconds and whenever a trial ends.

    Args:
        console: where to print.
        trials: the trials still to run.
        total: number of trials of the sweep, finished ones included.
        left: how many of them are to run.
        times: estimates; only their ratios matter once something has been measured.
        store: tells which stages need no work.
    """

    def __init__(
        self,
        console: Console,
        trials: list[Trial],
        *,
        total: int,
        left: int,
        times: Clock,
        store: StageStore,
        seconds: float = 10.0,
    ) -> None:
        self.console, self.store = console, store
        self.total, self.finished_trials = total, total - left
        self.started = time.monotonic()
        self.throttle = Throttle(seconds)
        self.running: dict[str, tuple[Trial, Progress]] = {}
        self.shares = {
            stage.key: _Share(times.seconds(trial, stage.name))
            for trial in trials
            for stage in trial.chain
            if not store.done(stage)
        }

    def progress(self, trial: Trial, progress: Progress) -> None:
        """Take in how far a trial's present stage is."""
        self.running[str(trial)] = (trial, progress)
        if progress.stage in NAMES:
            for stage in trial.chain:
                if stage.name == progress.stage:
                    self._set(stage.key, progress.step / progress.steps)
                    break
                self._set(stage.key, 1.0)
        if self.throttle.ready():
            self.console.print(self._line())

    def finished(self, trial: Trial) -> None:
        """Print the score of a finished trial."""
        self.finished_trials += 1
        self.running.pop(str(trial), None)
        for stage in trial.chain:
            self._set(stage.key, 1.0)
        miou = self.store.record(trial.chain.evaluate)["metrics"]["miou"]
        self.console.print(f"{self._head()}  mIoU {miou:.3f}  {trial}")

    def failed(self, trial: Trial, message: str) -> None:
        """Print that a trial failed."""
        self.running.pop(str(trial), None)
        self.console.print(f"{self._head()}  FAILED  {trial}: {message.splitlines()[0]}")

    def _set(self, key: str, fraction: float) -> None:
        if key in self.shares:
            self.shares[key].done = max(self.shares[key].done, fraction)

    def _head(self) -> str:
        elapsed = time.monotonic() - self.started
        return f"[{clock(elapsed)}] {self.finished_trials}/{self.total}"

    def _line(self) -> str:
        now = "; ".join(_describe(trial, progress) for trial, progress in self.running.values())
        return f"{self._head()}{self._left()}  {now}"

    def _left(self) -> str:
        total = sum(share.seconds for share in self.shares.values())
        done = sum(share.seconds * share.done for share in self.shares.values())
        if done < 0.03 * total:
            return ""
        elapsed = time.monotonic() - self.started
        return f", about {clock(elapsed * (total - done) / done)} left"


def _describe(trial: Trial, progress: Progress) -> str:
    if progress.stage == "pretrain":
        loss = f" loss {progress.metrics['loss']:.2f}" if "loss" in progress.metrics else ""
        return f"pretrain {trial.row} {progress.step / progress.steps:.0%}{loss}"
    if progress.stage in NAMES:
        return f"{progress.stage} {trial.label} {progress.step / progress.steps:.0%}"
    return f"{trial.row}: {progress.stage}"
