"""Two gloo processes that live as long as the test session and run functions side by side."""

from __future__ import annotations

import multiprocessing as mp
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WORKERS = 2


def _serve(rank: int, meeting_point: str, connection: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=WORKERS)
    while (task := connection.recv()) is not None:
        function, arguments = task
        try:
            connection.send((function(*arguments), None))
        except Exception:
            connection.send((None, traceback.format_exc()))
    dist.destroy_process_group()


class DistPool:
    """Runs an importable function in every process at once; close it when done."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[1])
        if root not in sys.path:
            sys.path.append(root)  # spawned processes inherit it and find the functions
        context = mp.get_context("spawn")
        meeting_point = (Path(tempfile.mkdtemp()) / "meeting").as_uri()
        self.connections: list[Connection] = []
        self.processes = []
        for rank in range(WORKERS):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, meeting_point, there), daemon=True)
            process.start()
            self.connections.append(here)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what ``function(*arguments)`` returned on rank 0 and on rank 1."""
        for connection in self.connections:
            connection.send((function, arguments))
        answers = [connection.recv() for connection in self.connections]
        failures = [failure for _, failure in answers if failure]
        if failures:
            raise AssertionError("\n".join(failures))
        return [result for result, _ in answers]

    def close(self) -> None:
        """End the processes."""
        for connection in self.connections:
            connection.send(None)
        for process in self.processes:
            process.join(timeout=20)
