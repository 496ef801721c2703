"""One representation on many workers, under Ray Train."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.config import FailureConfig

from raysweep import collective
from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.orchestration.learning import learn_representation
from raysweep.orchestration.stages import Stage, StageStore, Workspace
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.tune import opened
from raysweep.orchestration.worker import Progress, Report, Run
from raysweep.presets import Experiment


def pretrain_on_workers(
    experiment: Experiment, stage: Stage, *, storage: Storage, workers: int, report: Report
) -> None:
    """Compute a pretrain stage with ``workers`` processes, one accelerator each if there are any.

    Gradients go over NCCL between GPUs and gloo between CPUs. A killed worker is replaced and all
    resume from the last checkpoint of the stage.

    Raises:
        ConfigError: the cluster has fewer cores or GPUs than workers.
    """
    resources = ray.cluster_resources()
    use_gpu = bool(resources.get("GPU"))
    available = int(resources["GPU" if use_gpu else "CPU"])
    if available < workers:
        kind = "GPUs" if use_gpu else "cores"
        raise ConfigError(f"--workers {workers}: the cluster has {available} {kind}; ask for fewer")
    store = StageStore(storage)
    scratch = ("work", f"train-{uuid.uuid4().hex[:8]}")  # the stage's checkpoint is what resumes
    with store.claim(stage) as workspace, _Board(report) as board:
        if workspace is None:
            return
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={
                "experiment": to_dict(experiment),
                "storage": storage.uri,
                "stage": {
                    "name": stage.name,
                    "config": dict(stage.config),
                    "inputs": dict(stage.inputs),
                    "version": stage.version,
                },
                "board": board,
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1}
            ),
            run_config=ray.train.RunConfig(
                name="pretrain",
                storage_path=storage.address(*scratch),
                failure_config=FailureConfig(max_failures=2, controller_failure_limit=1),
            ),
        )
        try:
            trainer.fit()
        finally:
            storage.delete(*scratch)


class _RankCheckpoints:
    """All workers restore; the first one saves."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def load_checkpoint(self) -> dict[str, Any] | None:
        return self.workspace.load_checkpoint()

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        if collective.rank() == 0:
            self.workspace.save_checkpoint(state)


def _worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs; rank 0 commits the stage."""
    torch.set_num_threads(1)
    experiment = from_dict(Experiment, config["experiment"])
    storage = Storage(config["storage"])
    workspace = Workspace(Stage(**config["stage"]), storage)
    dataset = opened(experiment.data, storage.uri)
    rank = collective.rank()

    def report(progress: Progress) -> None:
        if rank == 0:
            config["board"].post.remote(progress)

    metrics = learn_representation(
        experiment,
        workspace,
        Run(StageStore(storage), dataset, ray.train.torch.get_device(), report),
        checkpoints=_RankCheckpoints(workspace),
        wrap=ray.train.torch.prepare_model,
    )
    if rank == 0:
        workspace.commit({**metrics, "workers": collective.size()})


class _Postbox:
    """Holds the newest progress of a run."""

    def __init__(self) -> None:
        self.newest: Progress | None = None

    def post(self, progress: Progress) -> None:
        self.newest = progress

    def read(self) -> Progress | None:
        return self.newest


class _Board:
    """Passes the progress of rank 0 on to the driver's report while a block runs."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.postbox: Any = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Any:
        self.postbox = ray.remote(num_cpus=0)(_Postbox).remote()
        self.thread.start()
        return self.postbox

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _poll(self) -> None:
        seen = None
        while not self.over.wait(1.0):
            newest = ray.get(self.postbox.read.remote())
            if newest is not None and newest != seen:
                seen = newest
                self.report(newest)
