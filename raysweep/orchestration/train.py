"""One training on many workers, under Ray Train: a representation, or a student."""

from __future__ import annotations

import logging
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
from raysweep.orchestration.datasets import opened
from raysweep.orchestration.distilling import Shards, learn_student
from raysweep.orchestration.learning import learn_representation
from raysweep.orchestration.notice import heed_sigterm
from raysweep.orchestration.stages import Stage, StageStore, Workspace
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.streaming import ParallelReader
from raysweep.orchestration.terminal import passing_on
from raysweep.orchestration.worker import Checkpoints, Progress, Report, Run

LOG = logging.getLogger(__name__)
MOST_DECODERS = 4
"""Processes that decode for one worker."""

SILENCE_SECONDS = 600
"""After so long the workers no longer wait for one that is silent: all start again."""


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
    resume from the last checkpoint of the stage; one that is told to end saves first.

    Raises:
        ConfigError: the cluster has fewer cores or GPUs than workers.
        ray.train.TrainingFailedError: the workers failed, or could not be had, again and again.
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
            torch_config=_Torch(timeout_s=SILENCE_SECONDS),
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


class _Backend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]
    """The process group, and workers that save when they are told to end."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(heed_sigterm)


class _Torch(ray.train.torch.TorchConfig):
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


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
    storage, stage = Storage(config["storage"]), Stage(**config["stage"])
    if StageStore(storage).done(stage):  # a worker died after the first one had committed
        return
    workspace = Workspace(stage, storage)
    dataset = opened(experiment.data, storage.uri)
    rank = collective.rank()

    def report(progress: Progress) -> None:
        if rank == 0:
            config["board"].post.remote(progress)

    run_with = Run(StageStore(storage), dataset, ray.train.torch.get_device(), report)
    member = Member(workspace, run_with, _RankCheckpoints(workspace))
    with passing_on(config["board"].warn.remote):
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
    """Holds the newest progress of a run, and its warnings."""

    def __init__(self) -> None:
        self.newest: Progress | None = None
        self.warnings: dict[str, None] = {}  # every worker has the same to say

    def post(self, progress: Progress) -> None:
        self.newest = progress

    def warn(self, text: str) -> None:
        self.warnings[text] = None

    def read(self) -> tuple[Progress | None, list[str]]:
        return self.newest, list(self.warnings)


class _Board:
    """Passes progress and warnings on to the driver while a block runs."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.postbox: Any = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)
        self.seen: Progress | None = None
        self.told = 0

    def __enter__(self) -> Any:
        self.postbox = ray.remote(num_cpus=0, max_restarts=-1)(_Postbox).remote()
        self.thread.start()
        return self.postbox

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _poll(self) -> None:
        while not self.over.wait(1.0):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            newest, warnings = ray.get(self.postbox.read.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):  # its node died; it comes back empty
            self.told = 0
            return
        for text in warnings[self.told :]:
            LOG.warning("%s", text)
        self.told = len(warnings)
        if newest is not None and newest != self.seen:
            self.seen = newest
            self.report(newest)
