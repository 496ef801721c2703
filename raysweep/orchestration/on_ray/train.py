"""One training on many workers, under Ray Train: a representation, or a student."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer
from torch import nn

from raysweep import collective
from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.experiment import Experiment
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.distilling import Shards, learn_student
from raysweep.orchestration.compute.learning import learn_representation
from raysweep.orchestration.compute.memory import Thrift, killed, sparing
from raysweep.orchestration.compute.worker import Checkpoints, Progress, Report, Run
from raysweep.orchestration.on_ray.board import Board
from raysweep.orchestration.on_ray.elastic import Counts, Workers
from raysweep.orchestration.on_ray.scaling import trainer
from raysweep.orchestration.on_ray.streaming import ParallelReader
from raysweep.orchestration.store.stages import Stage, StageStore, Workspace
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.terminal import passing_on

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
    experiment: Experiment, stage: Stage, *, storage: Storage, counts: Counts, report: Report
) -> None:
    """Compute a pretrain stage; see :func:`train_on_workers`."""
    train_on_workers(_pretrain, experiment, stage, storage=storage, counts=counts, report=report)


def distill_on_workers(
    experiment: Experiment,
    stage: Stage,
    shards: Shards,
    *,
    storage: Storage,
    counts: Counts,
    report: Report,
) -> None:
    """Compute a distill stage, its shards streamed by Ray Data; see :func:`train_on_workers`."""
    cores = int(ray.cluster_resources().get("CPU", 1))
    decoders = min(MOST_DECODERS, max(1, cores // counts[-1] - 1))
    training = partial(_distill, shards, decoders)
    train_on_workers(training, experiment, stage, storage=storage, counts=counts, report=report)


def train_on_workers(
    training: Training,
    experiment: Experiment,
    stage: Stage,
    *,
    storage: Storage,
    counts: Counts,
    report: Report,
) -> None:
    """Compute a stage with several processes, one accelerator each if there are any.

    Gradients go over NCCL between GPUs and gloo between CPUs. A killed worker is replaced and all
    resume from the last checkpoint of the stage; one that is told to end saves first. Of several
    ``counts`` the largest is taken that can be had: with fewer machines the training goes on with
    fewer workers, and when there are more, all save and go on with more. The stage's metrics say
    ``workers``, the last number, and ``worker_counts``: ``[[first step, workers], ...]``.

    Raises:
        ConfigError: the cluster has fewer cores or GPUs than the fewest workers.
        ray.train.TrainingFailedError: the workers failed, or could not be had, again and again
            without getting any further.
    """
    use_gpu = has_gpus_for(counts[0])
    store, board = StageStore(storage), Board(report)
    scratch = ("work", f"train-{uuid.uuid4().hex[:8]}")  # the stage's checkpoint is what resumes
    with store.claim(stage) as workspace, board as postbox:
        if workspace is None:
            return
        training_run = trainer(
            _worker,
            counts=counts,
            use_gpu=use_gpu,
            postbox=postbox,
            silence=SILENCE_SECONDS,
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
                "board": postbox,
            },
            run_config=ray.train.RunConfig(
                name=stage.name,
                storage_path=storage.address(*scratch),
                failure_config=FailureConfig(max_failures=2, controller_failure_limit=len(counts)),
            ),
        )
        try:
            _fit(training_run, board, Thrift(storage, stage))
        finally:
            storage.delete(*scratch)


def _fit(run: TorchTrainer, board: Board, thrift: Thrift) -> None:
    """Train; a run that Ray gives up after failures is taken up again if it has got any further.

    Or if it has run out of memory, once, in smaller micro-batches.
    """
    while True:
        reached = board.furthest
        try:
            run.fit()
        except ray.train.TrainingFailedError as error:
            starved = killed(error) is not None and thrift.lower()
            if board.furthest <= reached and not starved:
                raise
        else:
            return


def has_gpus_for(workers: int) -> bool:
    """Return whether workers get a GPU each; where there is none they get a core each.

    Raises:
        ConfigError: the cluster has fewer cores or GPUs than workers.
    """
    kind, available = _available()
    if available < workers:
        raise ConfigError(f"--workers {workers}: the cluster has {available} {kind}; ask for fewer")
    return kind == "GPUs"


def as_many_as_fit(workers: Workers) -> int:
    """Return how many workers have a GPU or, where there is none, a core each."""
    return max(workers.least, min(workers.most, _available()[1]))


def _available() -> tuple[str, int]:
    resources = ray.cluster_resources()
    if resources.get("GPU"):
        return "GPUs", int(resources["GPU"])
    return "cores", int(resources.get("CPU", 0))


class _RankCheckpoints:
    """All workers restore; the first one saves, and how many there were from which step on."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.worker_counts = [[0, collective.size()]]

    def load_checkpoint(self) -> dict[str, Any] | None:
        state = self.workspace.load_checkpoint()
        if state is not None:
            step, size = state["step"], collective.size()
            counts = state.pop("worker_counts", [[0, 1]])  # saved by a process of its own
            before = [entry for entry in counts if entry[0] < step]
            is_same = bool(before) and before[-1][1] == size
            self.worker_counts = before if is_same else [*before, [step, size]]
        return state

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        if collective.rank() == 0:
            self.workspace.save_checkpoint({**state, "worker_counts": self.worker_counts})


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
            metrics = {**progress.metrics, "workers": collective.size()}
            config["board"].post.remote(dataclasses.replace(progress, metrics=metrics))

    run_with = Run(StageStore(storage), dataset, ray.train.torch.get_device(), report)
    checkpoints = _RankCheckpoints(workspace)
    member = Member(workspace, run_with, checkpoints)
    with passing_on(config["board"].warn.remote):
        metrics = sparing(stage, storage, partial(config["training"], experiment, member))
    if rank == 0:
        counts = {"workers": collective.size(), "worker_counts": checkpoints.worker_counts}
        workspace.commit(metrics | counts)


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
