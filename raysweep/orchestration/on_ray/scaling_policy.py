"""Which number of workers trains, decided while machines come and go.

Ray's own elastic training takes every number between two; here only those that can share a batch
are taken, and machines that are about to go are not counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import ray
from ray._private.state import state as ray_state
from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR
from ray.train.v2._internal.execution.controller.state import (
    ReschedulingState,
    TrainControllerState,
)
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)
from ray.train.v2.torch.torch_trainer import TorchTrainer

from raysweep.orchestration.on_ray.elastic import Counts

PATIENCE_SECONDS = 3600.0
"""After so long without enough machines a training fails."""

REFUSED_SECONDS = 300.0
"""So long a number of workers that could not be started is not tried again on the same nodes."""

START_SECONDS = 20.0
"""Ray learns of a machine that vanished after 15 seconds; a start that counts on it is given up."""


class ElasticTrainer(TorchTrainer):
    """Ray's trainer with another policy.

    Args:
        loop: what each worker runs.
        counts: the numbers of workers.
        postbox: actor whose ``warn`` hears what the user should know.
        settings: of Ray's trainer.
    """

    def __init__(
        self,
        loop: Callable[[dict[str, Any]], None],
        *,
        counts: Counts,
        postbox: Any,
        **settings: Any,
    ) -> None:
        super().__init__(loop, **settings)
        self.counts, self.postbox = counts, postbox

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        parts["scaling_policy"] = _Policy(self.scaling_config, self.counts, self.postbox)
        return super()._initialize_and_run_controller(**parts)


class _Refused(NamedTuple):
    """A number of workers that could not be started: others had the cores, or a node died."""

    workers: int
    nodes: frozenset[str]
    since: float

    def holds(self, nodes: frozenset[str]) -> bool:
        """Return whether it need not be tried again on these nodes."""
        return nodes <= self.nodes and time.monotonic() - self.since < REFUSED_SECONDS


class _Policy(ElasticScalingPolicy):
    """Decides on the number of workers; runs in Ray Train's controller."""

    def __init__(self, scaling: Any, counts: Counts, postbox: Any) -> None:
        super().__init__(scaling)
        self.counts, self.postbox = counts, postbox
        self.waiting_since: float | None = None
        self.nodes: frozenset[str] = frozenset()
        self.tried = 0
        self.refused: _Refused | None = None

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for the machines; do not wait long for those that seem to be there."""
        os.environ.setdefault(WORKER_GROUP_START_TIMEOUT_S_ENV_VAR, str(START_SECONDS))
        super().after_controller_start(train_run_context)

    def _count_possible_workers(self, reserved_resources: dict[str, dict[str, float]]) -> int:
        # Ray looks at the nodes every 20 seconds only: some may have died since
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        self.nodes = frozenset(alive - set(ray_state.get_draining_nodes()))
        if isinstance(reserved_resources, dict):  # before 2.60 Ray does not say on which node
            known = reserved_resources.items()
            reserved_resources = {node: part for node, part in known if node in self.nodes}
        possible = super()._count_possible_workers(reserved_resources)
        if self.refused is not None and self.refused.holds(self.nodes):
            possible = min(possible, max(self.refused.workers - 1, self.counts[0]))
        return max((count for count in self.counts if count <= possible), default=0)

    def _get_resize_decision(self, num_workers: int) -> ResizeDecision:
        self.tried = num_workers
        return super()._get_resize_decision(num_workers)

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start with what can be had; wait, not for ever, where that is too little."""
        decision = super().make_decision_for_non_running_worker_group()
        if not isinstance(decision, NoopDecision):
            self.waiting_since = None
            return decision
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()
            self.postbox.warn.remote(
                f"waiting for machines: the training needs {self.counts[0]} workers or more"
            )
        if time.monotonic() - self.waiting_since > PATIENCE_SECONDS:
            raise RuntimeError(
                f"--workers: after {PATIENCE_SECONDS / 60:.0f} minutes there are no machines for "
                f"{self.counts[0]} workers; the same command goes on when there are"
            )
        time.sleep(1.0)  # Ray asks again at once
        return decision

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Take note of a number that could not be started."""
        failed = isinstance(current_state, ReschedulingState)
        if failed and not isinstance(previous_state, ReschedulingState):
            self.refused = _Refused(self.tried, self.nodes, time.monotonic())
