"""One training on many workers, under Ray Train: a representation, or a student."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.config import FailureConfig
from torch import nn

from raysweep import collective
from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.experiment import Experiment
from raysweep.orchestration.distilling import Shards, learn_student
from raysweep.orchestration.learning import learn_representation
from raysweep.orchestration.stages import Stage, StageStore, Workspace
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.streaming import ParallelReader
from raysweep.orchestration.tune import opened
from raysweep.orchestration.worker import Checkpoints, Progress, Report, Run

MOST_DECODERS = 4
"""Processes that decode for one worker."""


class Member(NamedTuple):
    """What one of the workers of a training has.

    Attributes:
        workspace: of the stage; rank 0 writes into it.
        run_with: dataset, device and report.
        checkpoints: all workers restore, rank 0 saves.
    """

    workspace: Workspace
    run_with: Run
    checkpoints: Checkpoints


Training = Callable[[Experiment, Member], dict[str, Any]]
"""Trains as one of the workers and returns the metrics of the stage; it must pickle."""


def pretrain_on_workers(
    experiment: Experiment, stage: Stage, *, storage: Storage, workers: int, report: Report
) -> None:
    """Compute a pretrain stage; see :func:`train_on_workers`."""
    train_on_workers(_pretrain, experiment, stage, storage=storage, workers=workers, report=report)


def distill_on_workers(
    experiment: Experiment,
    stage: Stage,
    shards: Shards,
    *,
    storage: Storage,
    workers: int,
    report: Report,
) -> None:
    """Compute a distill stage, its shards streamed by Ray Data; see :func:`train_on_workers`."""
    cores = int(ray.cluster_resources().get("CPU", 1))
    decoders = min(MOST_DECODERS, max(1, cores // workers - 1))
    training = partial(_distill, shards, decoders)
    train_on_workers(training, experiment, stage, storage=storage, workers=workers, report=report)


def train_on_workers(
    training: Training,
    experiment: Experiment,
    stage: Stage,
    *,
    storage: Storage,
    workers: int,
    report: Report,
) -> None:
    """Compute a stage with ``workers`` processes, one accelerator each if there are any.

    Gradients go over NCCL between GPUs and gloo between CPUs. A killed worker is replaced and all
    resume from the last checkpoint of the stage.

    Raises:
        ConfigError: the cluster has fewer cores or GPUs than workers.
    """
    use_gpu = has_gpus_for(workers)
    store = StageStore(storage)
    scratch = ("work", f"train-{uuid.uuid4().hex[:8]}")  # the stage's checkpoint is what resumes
    with store.claim(stage) as workspace, _Board(report) as board:
        if workspace is None:
            return
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={
                "training": training,
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
                name=stage.name,
                storage_path=storage.address(*scratch),
                failure_config=FailureConfig(max_failures=2, controller_failure_limit=1),
            ),
        )
        try:
            trainer.fit()
        finally:
            storage.delete(*scratch)


def has_gpus_for(workers: int) -> bool:
    """Return whether workers get a GPU each; where there is none they get a core each.

    Raises:
        ConfigError: the cluster has fewer cores or GPUs than workers.
    """
    resources = ray.cluster_resources()
    use_gpu = bool(resources.get("GPU"))
    available = int(resources["GPU" if use_gpu else "CPU"])
    if available < workers:
        kind = "GPUs" if use_gpu else "cores"
        raise ConfigError(f"--workers {workers}: the cluster has {available} {kind}; ask for fewer")
    return use_gpu


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

    run_with = Run(StageStore(storage), dataset, ray.train.torch.get_device(), report)
    member = Member(workspace, run_with, _RankCheckpoints(workspace))
    metrics = config["training"](experiment, member)
    if rank == 0:
        workspace.commit({**metrics, "workers": collective.size()})


def _pretrain(experiment: Experiment, member: Member) -> dict[str, Any]:
    return learn_representation(
        experiment,
        member.workspace,
        member.run_with,
        checkpoints=member.checkpoints,
        wrap=ray.train.torch.prepare_model,
    )


def _distill(
    shards: Shards, decoders: int, experiment: Experiment, member: Member
) -> dict[str, Any]:
    def wrap(network: nn.Module) -> nn.Module:
        if member.run_with.device.type == "cuda":  # gloo has no synchronised batch norm
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        wrapped: nn.Module = ray.train.torch.prepare_model(network)
        return wrapped

    return learn_student(
        experiment,
        shards,
        member.workspace,
        member.run_with,
        checkpoints=member.checkpoints,
        wrap=wrap,
        reader=partial(ParallelReader, decoders=decoders),
    )


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
