"""The distill stage: a student learns from shards of pseudo-labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

from raysweep import collective
from raysweep.config import ConfigError, to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.distill.feed import Feed, Reader, bad_row_texts
from raysweep.distill.manifest import Manifest, read_manifest
from raysweep.distill.stream import BadRow, ShardStream
from raysweep.distill.student import Student
from raysweep.distill.student_config import StudentConfig, candidate_steps, total_steps
from raysweep.distill.validation import validation_loss
from raysweep.experiment import Experiment
from raysweep.learner import Batch, identity
from raysweep.orchestration.compute.chain import Chain
from raysweep.orchestration.compute.worker import LOG_EVERY, Checkpoints, Curve, Run, run
from raysweep.orchestration.store.stages import Workspace
from raysweep.orchestration.store.storage import write_atomically


@dataclass(frozen=True)
class Shards:
    """Pseudo-labels to learn from.

    Attributes:
        files: the file system.
        root: directory of the files.
        manifest: of the files.
        max_bad_rows: rows that may be skipped because they cannot be decoded.
    """

    files: pafs.FileSystem
    root: str
    manifest: Manifest
    max_bad_rows: int = 0

    def stream(self, config: StudentConfig) -> ShardStream:
        """Return this worker's batches for a student."""
        return ShardStream(
            self.manifest,
            files=self.files,
            root=self.root,
            seed=config.seed,
            batch=config.batch,
            rank=collective.rank(),
            workers=collective.size(),
            shuffle_buffer=config.shuffle_buffer,
            max_bad_rows=self.max_bad_rows,
            soft=config.loss == "soft",
        )


def open_shards(place: Path | str, *, max_bad_rows: int = 0) -> Shards:
    """Open a directory of shards.

    Args:
        place: a path, or a URI of ``pyarrow.fs``.
        max_bad_rows: see :class:`Shards`.

    Raises:
        ShardError: there is no manifest, or it is damaged.
        ConfigError: no file system is known for the URI.
    """
    try:
        files, root = (
            pafs.FileSystem.from_uri(str(place))
            if "://" in str(place)
            else (pafs.LocalFileSystem(), str(Path(place).expanduser().resolve()))
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"--shards {str(place)!r} cannot be opened: {error}") from None
    root = root.rstrip("/")
    return Shards(files, root, read_manifest(files, root), max_bad_rows)


def distill(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``candidate-<step>.safetensors``, ``curve.json`` and ``dataset.json``."""
    assert chain.label is not None
    shards = open_shards(run_with.store.directory(chain.label))
    return learn_student(experiment, shards, workspace, run_with, checkpoints=workspace)


def learn_student(
    experiment: Experiment,
    shards: Shards,
    workspace: Workspace,
    run_with: Run,
    *,
    checkpoints: Checkpoints,
    wrap: Callable[[nn.Module], nn.Module] = identity,
    reader: Callable[[ShardStream], Reader] | None = None,
) -> dict[str, Any]:
    """Train as one of ``collective.size()`` workers; rank 0 leaves the files.

    Args:
        experiment: what to train.
        shards: what to learn from.
        workspace: where files go.
        run_with: dataset with the classes, device and report.
        checkpoints: where state is kept.
        wrap: makes the student data-parallel.
        reader: reads a stream's batches in parallel; one after the other if left out.
    """
    config, info = experiment.student, run_with.dataset.info
    check_classes(shards.manifest, info)
    steps = total_steps(config, rows=shards.manifest.rows)
    student = Student(
        config,
        num_classes=len(info.classes),
        flip_pairs=info.flip_pairs,
        device=run_with.device,
        wrap=wrap,
    )
    stream = shards.stream(config)
    feed = Feed(stream, steps=steps, read=None if reader is None else reader(stream))
    try:
        curve = run(
            _Streamed(student, feed),
            feed.batch_at,
            name="distill",
            steps=steps,
            checkpoints=checkpoints,
            report=run_with.report,
            after_step=_Candidates(student, workspace, rows=shards.manifest.rows).keep,
            measure=_Validation(experiment, student, len(stream), run_with).measure,
        )
    finally:
        feed.close()
    return _leave(curve, info, feed, workspace, images=steps * config.batch)


class _Candidates:
    """Keeps the student as it is after some of the steps; on rank 0 only."""

    def __init__(self, student: Student, workspace: Workspace, *, rows: int) -> None:
        self.student, self.folder = student, workspace.path
        self.steps = set(candidate_steps(student.config, rows=rows))

    def keep(self, step: int) -> None:
        if step in self.steps and collective.rank() == 0:
            tensors = safetensors.torch.save(self.student.network_state())
            write_atomically(self.folder / f"candidate-{step}.safetensors", tensors)


def check_classes(manifest: Manifest, info: DatasetInfo) -> None:
    """Check that shards and a dataset have the same number of classes.

    Raises:
        ConfigError: they have not.
    """
    if manifest.num_classes != len(info.classes):
        raise ConfigError(
            f"the shards have {manifest.num_classes} classes, {info.name} has "
            f"{len(info.classes)}; give the dataset that the teacher was fitted on"
        )


def _leave(
    curve: Curve, info: DatasetInfo, feed: Feed, workspace: Workspace, *, images: int
) -> dict[str, Any]:
    bad = _everyones(feed.stream.bad_rows)
    if collective.rank() == 0:
        write_atomically(workspace.path / "curve.json", json.dumps(curve, indent=1).encode())
        text = json.dumps(to_dict(info), indent=1)
        write_atomically(workspace.path / "dataset.json", text.encode())
    return {
        **(curve[-1] if curve else {}),
        "samples": images,
        "waiting_share": round(feed.waiting_share, 4),
        "first_batch_seconds": round(feed.first_seconds, 3),
        "bad_rows": bad_row_texts(bad),
    }


def _everyones(rows: tuple[BadRow, ...]) -> tuple[BadRow, ...]:
    """Gather the rows that the workers skipped; after a resume, only rank 0's earlier ones."""
    if not collective.active():
        return rows
    every: list[Any] = [None] * collective.size()
    dist.all_gather_object(every, [tuple(bad) for bad in rows])
    found = {bad[:3]: BadRow(*bad) for part in every for bad in part}
    return tuple(found[place] for place in sorted(found))


class _Streamed:
    """A student whose state includes the rows that its stream skipped."""

    def __init__(self, student: Student, feed: Feed) -> None:
        self.student, self.feed = student, feed

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.student.step(batch)

    def state_dict(self) -> dict[str, Any]:
        return {"student": self.student.state_dict(), "feed": self.feed.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.feed.load_state_dict(state["feed"])


class _Validation:
    """Loss on the labelled training images after every epoch, for a rate that follows it.

    Deviation: ReGAN holds out 0.5 percent of the generated images.
    """

    def __init__(
        self, experiment: Experiment, student: Student, steps_per_epoch: int, run_with: Run
    ) -> None:
        self.student, self.per_epoch = student, steps_per_epoch
        config, data = experiment.student, experiment.data
        self.labelled: tuple[torch.Tensor, torch.Tensor] | None = None
        if config.plateau_patience is not None:
            names = run_with.dataset.shots(data.shots, data.draw)
            self.labelled = (
                run_with.dataset.images("train", px=config.resolution, names=names),
                run_with.dataset.masks("train", px=config.resolution, names=names),
            )

    def measure(self, done: int) -> dict[str, float]:
        """Return the loss at the first window's end in each epoch; may lower the rate."""
        if self.labelled is None or done // self.per_epoch == (done - LOG_EVERY) // self.per_epoch:
            return {}
        loss = float(collective.mean(validation_loss(self.student, *self.labelled)))
        self.student.validated(loss)
        return {"validation_loss": loss}
