"""Render a built-in dataset on all cores of this machine, once."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from raysweep.data.builtin import building, builtin_chunks, builtin_path, write_chunk
from raysweep.data.render import DOMAINS
from raysweep.experiment import DataConfig
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.terminal import Throttle

PROGRESS_SECONDS = 5.0


def materialise_in_parallel(data: DataConfig, storage: Storage, screen: Console) -> None:
    """Render what is missing of a built-in dataset; other datasets need nothing.

    On a cluster whose storage is an object store, each node that needs the images renders its own
    copy: cheaper than sending them. A head without cores needs none.
    """
    cache = storage.local("data")
    if not storage.is_local and not _has_cores():
        return
    if data.source not in DOMAINS or builtin_path(data.builtin, data.source, cache=cache).exists():
        return
    with building(data.builtin, data.source, cache=cache) as directory:
        if directory is None:
            return
        task = ray.remote(num_cpus=1, max_retries=2)(write_chunk)
        if not storage.is_local:
            here = NodeAffinitySchedulingStrategy(_node(), soft=False)
            task = task.options(scheduling_strategy=here)
        chunks = builtin_chunks(data.builtin, data.source)
        screen.print(f"rendering {sum(chunk.count for chunk in chunks)} images of {data.source}")
        left = [task.remote(chunk, directory) for chunk in chunks]
        throttle = Throttle(PROGRESS_SECONDS)
        while left:
            done, left = ray.wait(left, num_returns=1)
            ray.get(done)
            if throttle.ready():
                screen.print(f"  {1 - len(left) / len(chunks):.0%}")


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _has_cores() -> bool:
    """Return whether tasks can run on the machine of this process."""
    return any(n["Resources"].get("CPU") for n in ray.nodes() if n["NodeID"] == _node())
