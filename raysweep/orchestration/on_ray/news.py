"""What the driver hears of trials while Tune runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import tune

from raysweep.orchestration.compute.memory import ABOUT_HOST, killed
from raysweep.orchestration.compute.worker import Progress
from raysweep.orchestration.planning.plan import Trial

LOG = logging.getLogger(__name__)
INDEX = "index"
"""The parameter of a Tune function that says which trial it is."""


@dataclass(frozen=True)
class Listener:
    """What the driver does with news of trials."""

    progress: Callable[[Trial, Progress], None]
    finished: Callable[[Trial], None]
    failed: Callable[[Trial, str], None]


class Running(tune.Callback):
    """Knows which process computes what."""

    def __init__(self) -> None:
        self.parameters: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Called by Tune, which forgets the actor when the run is over."""
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            self.parameters[actor._actor_id.hex()] = trial.config

    def parameters_of(self, actors: list[str]) -> list[dict[str, Any]]:
        """Return the parameters of what these actors were computing."""
        return [self.parameters[actor] for actor in actors if actor in self.parameters]


class News(tune.Callback):
    """Passes reports on to the driver's listener."""

    def __init__(self, trials: list[Trial], listener: Listener) -> None:
        self.trials, self.listener = trials, listener
        self.over: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore them; we never do, and listeners hold files."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Called by Tune at every report."""
        if INDEX not in result:
            return
        which = self.trials[result[INDEX]]
        if "progress" in result:
            self.listener.progress(which, Progress(**result["progress"]))
        elif "failure" in result:
            self.failed(result[INDEX], result["failure"])
        elif "finished" in result:
            self.over.add(result[INDEX])
            self.listener.finished(which)
        elif "warning" in result:
            LOG.warning("%s: %s", which, result["warning"])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Called by Tune when a trial is about to start again."""
        which = self.trials[trial.config[INDEX]]
        why = "its process died" if killed(trial.get_error()) is None else ABOUT_HOST
        LOG.warning("%s: %s; it goes on from its last checkpoint", which, why)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Called by Tune when a trial has died too often."""
        error = trial.get_error()
        if killed(error) is None:  # else its turn comes when others need less memory
            self.failed(trial.config[INDEX], f"the worker died\n\n{error}")

    def give_up(self, indices: list[int], why: Exception) -> None:
        """Let trials fail that no attempt is left for."""
        for index in indices:
            self.failed(index, f"{type(why).__name__}: {why}")

    def failed(self, index: int, message: str) -> None:
        """Take note that a trial will have no result."""
        self.over.add(index)
        self.listener.failed(self.trials[index], message)
