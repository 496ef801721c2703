"""A Ray Train worker group whose workers save before they end, of one size or of several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import ray
import ray.train.torch
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from raysweep.orchestration.compute.notice import heed_sigterm, leave_running
from raysweep.orchestration.on_ray.elastic import Counts

RESIZE_SECONDS = float(os.environ.get("RAYSWEEP_RESIZE_SECONDS", "30"))
"""Time between two looks for more machines; how a stage is run, so not part of any config."""

LEAVE_SECONDS = 120.0
"""Most time that workers have to save before their number changes; they need a window of steps."""


def trainer(
    loop: Callable[[dict[str, Any]], None],
    *,
    counts: Counts,
    use_gpu: bool,
    postbox: Any,
    silence: int,
    **settings: Any,
) -> TorchTrainer:
    """Return what trains with one of several numbers of workers: always the most that can be had.

    Args:
        loop: what each worker runs.
        counts: the numbers.
        use_gpu: give each worker a GPU, else a core.
        postbox: actor whose ``warn`` hears what the user should know.
        silence: seconds after which workers no longer wait for one of them.
        settings: other arguments of Ray's trainer.
    """
    fewest, most = counts[0], counts[-1]
    settings["torch_config"] = _Torch(timeout_s=silence)
    settings["scaling_config"] = ScalingConfig(
        num_workers=(fewest, most) if fewest < most else most,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": 1},
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
    )
    if len(counts) == 1:
        return TorchTrainer(loop, **settings)
    # builds on parts of Ray that may change from version to version; one size needs none of them
    from raysweep.orchestration.on_ray.scaling_policy import ElasticTrainer

    return ElasticTrainer(loop, counts=counts, postbox=postbox, **settings)


class _Backend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]
    """The process group, and workers that save when they are told to end."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(heed_sigterm)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Let those save that still train: their number is to change, and they start anew."""
        leaving = worker_group.execute_async(leave_running, LEAVE_SECONDS)
        with contextlib.suppress(ray.exceptions.RayError):  # one has died: none can save
            ray.get(leaving, timeout=LEAVE_SECONDS + 10)
        super().on_shutdown(worker_group, backend_config)


class _Torch(ray.train.torch.TorchConfig):
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
