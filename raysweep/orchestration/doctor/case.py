"""What the doctor examines, looked at once: this machine, the cluster, the experiment."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from raysweep.config import ConfigError
from raysweep.data.dataset import DatasetInfo
from raysweep.experiment import Experiment
from raysweep.orchestration.cli import checked, experiment_from
from raysweep.orchestration.doctor import cluster as doctor_cluster
from raysweep.orchestration.doctor.cluster import ClusterFacts, Node, Request
from raysweep.orchestration.doctor.facts import cores, limited, look, marked, touch
from raysweep.orchestration.on_ray.elastic import Workers
from raysweep.orchestration.store.storage import Storage

LOOK_SECONDS = 60.0


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        level: ``ok``; ``warn`` if work would run, but not as one would wish; ``fail``.
        message: what there is.
        remedy: what to do about it; empty if nothing is to be done.
    """

    level: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Case:
    """What is examined.

    Attributes:
        storage: ``--storage``, absolute if it is a path.
        workers: ``--workers``.
        experiment: the preset with ``--data``.
        info: the dataset, or why it cannot be used.
        here: this machine.
        address: of the cluster; None if work would run on this machine.
        cluster: what it looks like, or why it was not reached; None without an address.
    """

    storage: str
    workers: Workers
    experiment: Experiment
    info: DatasetInfo | str
    here: Node
    address: str | None = None
    cluster: ClusterFacts | str | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The machines on which work would run, as far as they are known."""
        if self.address is None:
            return (self.here,)
        return self.cluster.nodes if isinstance(self.cluster, ClusterFacts) else ()

    @property
    def everywhere(self) -> tuple[Node, ...]:
        """This machine and, with a cluster, its nodes."""
        return (self.here,) if self.address is None else (self.here, *self.nodes)


def take(options: argparse.Namespace) -> Case:
    """Look at everything once; what cannot be looked at is part of the case, not an error.

    Raises:
        ConfigError: a flag cannot be used.
    """
    wanted = argparse.Namespace(preset=options.preset, data=options.data, assignments=[])
    experiment = experiment_from(wanted)
    place, data = _absolute(options.storage), experiment.data.source
    address = options.address or os.environ.get("RAY_ADDRESS")
    return Case(
        storage=place,
        workers=options.workers,
        experiment=experiment,
        info=_described(experiment),
        here=this_machine(place, data=data),
        address=address,
        cluster=None if address is None else _visited(address, place, data),
    )


def this_machine(storage: str, *, data: str) -> Node:
    """Return this machine as the only node of a cluster that Ray would start here."""
    facts = storage_facts = problem = storage_problem = None
    try:
        facts = limited(look, LOOK_SECONDS)
    except Exception as error:  # a broken torch must not end the examination
        problem = f"{type(error).__name__}: {error}"
    try:
        storage_facts = limited(lambda: touch(storage, marker=None, data=data), LOOK_SECONDS)
    except Exception as error:
        storage_problem = f"{type(error).__name__}: {error}"
    counted = {"CPU": cores(), "GPU": torch.cuda.device_count()}
    return Node(
        name=socket.gethostname(),
        resources={kind: float(count) for kind, count in counted.items()},
        facts=facts,
        problem=problem,
        storage=storage_facts,
        storage_problem=storage_problem,
    )


def _absolute(uri: str) -> str:
    try:
        return limited(lambda: Storage(uri).uri, LOOK_SECONDS)
    except (ConfigError, OSError):  # a finding: see touch
        return uri


def _visited(address: str, storage: str, data: str) -> ClusterFacts | str:
    try:
        with _marked(storage) as marker:
            request = Request(address=address, storage=storage, marker=marker, data=data)
            return doctor_cluster.visit(request)
    except (OSError, ValueError) as error:
        return str(error)


@contextmanager
def _marked(uri: str) -> Iterator[str | None]:
    """Keep a file in the storage for the nodes to find; None where it cannot be written."""
    try:
        block = marked(Storage(uri))
        marker = limited(block.__enter__, LOOK_SECONDS)
    except (ConfigError, OSError):  # a finding of this machine's own visit
        yield None
        return
    try:
        yield marker
    finally:
        with suppress(OSError):
            limited(lambda: block.__exit__(None, None, None), LOOK_SECONDS)


def _described(experiment: Experiment) -> DatasetInfo | str:
    try:
        return limited(lambda: checked(experiment), LOOK_SECONDS)
    except Exception as error:
        return str(error) or type(error).__name__
