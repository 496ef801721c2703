"""A look at every node of a running Ray cluster, by a process of its own.

Ray's core may end the process that fails to connect, or wait for minutes; a process can be given
up, and its end is a finding like any other.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from raysweep.config import Config, ConfigError, ConfigT, from_dict, to_dict
from raysweep.orchestration.doctor.facts import MachineFacts, StorageFacts, limited, look, touch
from raysweep.orchestration.store.storage import write_atomically

CLUSTER_SECONDS = 120.0
KNOCK_SECONDS = 10.0
NODE_SECONDS = 60.0
STATE_SECONDS = 20.0


class Node(Config):
    """A machine on which work would run.

    Attributes:
        name: its host name or address.
        resources: what Ray counts there, e.g. ``{"CPU": 8.0, "GPU": 1.0}``.
        facts: what it has; None if it did not answer.
        problem: why it did not answer.
        storage: what it sees of the storage; None if it did not say.
        storage_problem: why it did not say.
        skew: seconds by which its clock is off from the driver's, at least.
    """

    name: str
    resources: dict[str, float]
    facts: MachineFacts | None = None
    problem: str | None = None
    storage: StorageFacts | None = None
    storage_problem: str | None = None
    skew: float = 0.0


class NodeType(Config):
    """A type of machine that the cluster's autoscaler may start.

    Attributes:
        name: its name in the cluster's configuration.
        resources: what Ray would count on one.
        most: how many there may be, those that run included; -1 for any number.
    """

    name: str
    resources: dict[str, float]
    most: int


class ClusterFacts(Config):
    """What the driver sees of a cluster.

    Attributes:
        nodes: those that are up.
        types: those that the autoscaler may start; empty without an autoscaler.
        state_problem: why the State API does not answer; None if it does.
    """

    nodes: tuple[Node, ...]
    types: tuple[NodeType, ...] = ()
    state_problem: str | None = None


class Request(Config):
    """What the process is to look at.

    Attributes:
        address: of the cluster, as ``ray.init`` takes it.
        storage: ``--storage``, absolute.
        marker: name of the file that the driver keeps there meanwhile, if it could write one.
        data: ``data.source`` of the experiment.
    """

    address: str
    storage: str
    marker: str | None
    data: str


def visit(request: Request) -> ClusterFacts:
    """Return what the cluster looks like.

    Raises:
        TimeoutError: it did not answer in time.
        OSError: it could not be joined; the message is the system's or Ray's.
    """
    _knock(request.address)
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "request.json"), Path(folder, "facts.json")
        asked.write_text(request.model_dump_json())
        code = f"from {__name__} import main; main()"
        command = [sys.executable, "-c", code, str(asked), str(answer)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=CLUSTER_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no answer in {CLUSTER_SECONDS:.0f} s") from None
        if not answer.exists():
            raise ConnectionError(_reason(done.stderr) or f"exit code {done.returncode}")
        return ClusterFacts.model_validate_json(answer.read_text())


def _knock(address: str) -> None:
    """Open and close a connection: Ray would try for minutes where nothing listens."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        with closing(socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS)):
            pass


def _reason(text: str) -> str:
    """Return the line of a traceback that says what happened, in short."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.split(" ")[0].endswith(("Error:", "Error"))]
    refused = [line for line in errors if "AuthenticationError" in line]
    chosen = (refused or errors[-1:] or lines[-1:] or [""])[0]
    return textwrap.shorten(chosen, width=200, placeholder=" ...")


def examine(request: Request) -> ClusterFacts:
    """Join the cluster, send one task to look and one to touch the storage to every node."""
    import ray

    context = ray.init(address=request.address, log_to_driver=False, logging_level=logging.ERROR)
    places = [place for place in ray.nodes() if place["Alive"]]
    words = {"marker": request.marker, "data": request.data}
    tasks = [
        (_task(_look, place).remote(), _task(_touch, place).remote(request.storage, **words))
        for place in places
    ]
    every = [task for pair in tasks for task in pair]
    ray.wait(every, num_returns=len(every), timeout=NODE_SECONDS)
    nodes = tuple(_node(place, *pair) for place, pair in zip(places, tasks, strict=True))
    return ClusterFacts(
        nodes=nodes, types=_types(), state_problem=_state_problem(context.dashboard_url)
    )


def main() -> None:
    """Read the request named by the first argument, write the facts to the second."""
    asked, answer = map(Path, sys.argv[1:3])
    facts = examine(Request.model_validate_json(asked.read_text()))
    write_atomically(answer, facts.model_dump_json().encode())


def _look() -> dict[str, Any]:
    """Return plain data: the raysweep of a node need not be the driver's."""
    return to_dict(look())


def _touch(uri: str, *, marker: str | None, data: str) -> dict[str, Any]:
    return to_dict(touch(uri, marker=marker, data=data))


def _task(function: Callable[..., Any], place: dict[str, Any]) -> Any:
    """Return a task for one node; it takes no core, so that a busy cluster answers too."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(place["NodeID"], soft=False)
    remote: Any = ray.remote
    return remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


def _node(place: dict[str, Any], looked: Any, touched: Any) -> Node:
    facts, problem = _answer(MachineFacts, looked)
    storage, storage_problem = _answer(StorageFacts, touched)
    return Node(
        name=f"{place['NodeManagerHostname']} ({place['NodeManagerAddress']})",
        resources={kind: place["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")},
        facts=facts,
        problem=problem,
        storage=storage,
        storage_problem=storage_problem,
        skew=_skew(place) if problem is None else 0.0,
    )


def _answer(kind: type[ConfigT], task: Any) -> tuple[ConfigT | None, str | None]:
    """Return what a task answered, or why it did not."""
    import ray

    try:
        return from_dict(kind, ray.get(task, timeout=0.1)), None
    except ray.exceptions.GetTimeoutError:
        return None, f"no answer in {NODE_SECONDS:.0f} s"
    except ConfigError:
        return None, "its raysweep is of another version"
    except Exception as error:  # whatever goes wrong on a node is what is looked for
        return None, _reason(str(error)) or type(error).__name__


def _skew(place: dict[str, Any]) -> float:
    """Return by how much a clock is off beyond the time that asking takes."""
    import ray

    sent = time.time()
    there = ray.get(_task(_clock, place).remote(), timeout=STATE_SECONDS)
    return float(max(sent - there, there - time.time(), 0.0))


def _clock() -> float:
    return time.time()


def _types() -> tuple[NodeType, ...]:
    from ray._private.state import state

    config = state.get_cluster_config()
    return tuple(
        NodeType(
            name=group.name,
            resources={kind: float(group.resources.get(kind, 0)) for kind in ("CPU", "GPU")},
            most=group.max_count,
        )
        for group in (config.node_group_configs if config else ())
    )


def _state_problem(dashboard: str | None) -> str | None:
    from ray.util.state import list_nodes

    if not dashboard:
        return "the cluster runs without its dashboard, which serves it"
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # would be asked instead
    address = f"http://{dashboard}"
    try:
        limited(lambda: list_nodes(address=address, timeout=10), STATE_SECONDS)
    except Exception as error:  # Ray, requests and the dashboard each have their own
        return f"{address}: {_reason(str(error)) or type(error).__name__}"
    return None
