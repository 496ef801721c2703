"""Shards into a training loop: Ray Data, a torch DataLoader and the plain reader, side by side.

All read the same shards and decode with the same code; the loader has as many processes as Ray Data
has decoders. The training loop takes batches and does nothing with them. Rows a second are those of
the second half; the time to the first batch is printed apart. The limit is a bare pyarrow scan with
decoding in one thread. Peak memory is that of a side's process and its children (Linux), for 1x and
8x the rows.

    python benchmarks/stream.py                             64 and 256 px, about four minutes
    python benchmarks/stream.py --px 64 --rows 1024         a minute
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from raysweep import rng
from raysweep.data.decoding import encode_png
from raysweep.distill.feed import Feed
from raysweep.distill.manifest import read_manifest
from raysweep.distill.rows import OpenShard, ShardRow, decode, row_of
from raysweep.distill.shards import ShardsConfig, write_shards
from raysweep.distill.stream import ShardStream
from raysweep.learner import Batch

SIDES = ("scan", "plain", "loader", "ray")
BATCH, CLASSES = 16, 12
PICTURES = 256
SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Measured:
    """One side of one case."""

    rows_per_second: float
    first_seconds: float
    peak_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases, each side in a process of its own, and print a table."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--px", type=int, nargs="+", default=[64, 256])
    flags.add_argument("--rows", type=int, default=2048, help="at 64 px; a quarter from 256 px on")
    flags.add_argument("--times", type=int, nargs="+", default=[1, 8], help="multiples of the rows")
    flags.add_argument("--decoders", type=int, default=1, help="processes that decode")
    flags.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = flags.parse_args(argv)
    if options.measure:
        side, root = options.measure
        print(json.dumps(vars(measure(side, root, decoders=options.decoders))))
        return 0
    print(f"{'':<10}{'':>8}{'rows/s':>10}{'of loader':>11}{'first batch':>13}{'peak':>10}")
    for px in options.px:
        rows = options.rows if px < 256 else options.rows // 4
        for times in options.times:
            with tempfile.TemporaryDirectory() as folder:
                write(folder, rows=rows * times, px=px)
                compare(folder, f"{px} px", rows * times, options.decoders)
    return 0


def compare(root: str, name: str, rows: int, decoders: int) -> None:
    """Measure every side over the same shards; print a line for each."""
    found = {side: in_process(side, root, decoders) for side in SIDES}
    for side, value in found.items():
        ratio = value.rows_per_second / found["loader"].rows_per_second
        print(
            f"{name:<10}{rows:>8}{value.rows_per_second:>10.0f}{ratio:>10.2f}x"
            f"{value.first_seconds:>11.2f} s{value.peak_mb:>7.0f} MB  {side}",
            flush=True,
        )


def in_process(side: str, root: str, decoders: int) -> Measured:
    """Measure one side in a new process; its children count as well."""
    command = [sys.executable, __file__, "--measure", side, root, "--decoders", str(decoders)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    finished = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Measured(**json.loads(finished.stdout.splitlines()[-1]))


def write(root: str, *, rows: int, px: int) -> None:
    """Write shards of a few pictures over and over, each decoded as often as it comes."""
    pictures = [_picture(at, px) for at in range(min(rows, PICTURES))]
    write_shards(
        pafs.LocalFileSystem(),
        root,
        (pictures[at % PICTURES]._replace(id=f"i{at}") for at in range(rows)),
        teacher="benchmark",
        num_classes=CLASSES,
        config=ShardsConfig(rows_per_file=512),
    )


def _picture(at: int, px: int) -> ShardRow:
    """Return smooth noise, which compresses about as photographs do."""
    draws = rng.numpy_generator(0, "stream", at)
    coarse = torch.from_numpy(draws.uniform(0, 255, (1, 3, px // 8, px // 8)))
    smooth = torch.nn.functional.interpolate(coarse, size=(px, px), mode="bilinear")
    noisy = smooth[0].permute(1, 2, 0).numpy() + draws.normal(0, 2, (px, px, 3))
    blocks = np.kron(draws.integers(0, CLASSES, (8, 8)), np.ones((px // 8, px // 8)))
    return ShardRow(
        id="",
        image=encode_png(noisy.clip(0, 255).astype(np.uint8)),
        mask=encode_png(blocks.astype(np.uint8)),
        uncertainty=0.0,
        teacher="benchmark",
    )


def measure(side: str, root: str, *, decoders: int) -> Measured:
    """Run one side over an epoch in this process."""
    torch.set_num_threads(1)
    memory = _Memory()
    if side == "ray":
        from raysweep.orchestration.on_ray.tune import start_ray

        start_ray(None)
    began = time.perf_counter()
    arrived: list[float] = []
    for batch in _batches(side, root, decoders):
        assert len(batch["image"]) == BATCH
        arrived.append(time.perf_counter())
    half = len(arrived) // 2  # what was read ahead of the first batch is no part of the speed
    rate = (len(arrived) - 1 - half) * BATCH / (arrived[-1] - arrived[half])
    return Measured(rate, arrived[0] - began, memory.stop())


def _batches(side: str, root: str, decoders: int) -> Iterator[Batch]:
    if side == "scan":
        yield from _scan(root)
    elif side == "loader":
        loader = DataLoader(
            _Rows(root), batch_size=BATCH, num_workers=decoders, drop_last=True, prefetch_factor=4
        )
        yield from loader
    else:
        stream = stream_of(root)
        read = None
        if side == "ray":
            from raysweep.orchestration.on_ray.streaming import ParallelReader

            read = ParallelReader(stream, decoders=decoders)
        feed = Feed(stream, steps=len(stream), read=read)
        yield from map(feed.batch_at, range(len(stream)))
        feed.close()


def stream_of(root: str) -> ShardStream:
    """Return the stream that a training would read, shuffled."""
    files = pafs.LocalFileSystem()
    manifest = read_manifest(files, root)
    return ShardStream(manifest, files=files, root=root, seed=0, batch=BATCH, shuffle_buffer=1024)


def rows_of(root: str, *, part: int, parts: int) -> Iterator[Batch]:
    """Decode every row of every ``parts``-th file, in the order of the files."""
    files = pafs.LocalFileSystem()
    manifest = read_manifest(files, root)
    for file in manifest.files[part::parts]:
        shard = OpenShard(files, f"{root}/{file.name}", size=file.bytes)
        for group, count in enumerate(shard.group_rows):
            table = shard.read(group)
            for at in range(count):
                yield decode(row_of(table, at), num_classes=CLASSES)
        shard.close()


def _scan(root: str) -> Iterator[Batch]:
    rows = rows_of(root, part=0, parts=1)
    collect = partial(torch.utils.data.default_collate)
    pending: list[Batch] = []
    for row in rows:
        pending.append(row)
        if len(pending) == BATCH:
            yield collect(pending)
            pending = []


class _Rows(IterableDataset[Batch]):
    """The usual loader: files are shared out among its processes, nothing is shuffled."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        return rows_of(self.root, part=part, parts=parts)


class _Memory:
    """The most memory that this process and its descendants had together, in MB.

    What several processes map is counted once (proportional set size).
    """

    def __init__(self) -> None:
        self.peak, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.over.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, _together())

    def stop(self) -> float:
        self.over.set()
        self.thread.join()
        return self.peak


def _together() -> float:
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            after_name = place.read_text().rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(place.parent.name))
    family, total = [os.getpid()], 0
    for process in family:  # grows while it is walked
        family += children.get(process, [])
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 2**10


if __name__ == "__main__":
    sys.exit(main())
