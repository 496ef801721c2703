"""The job behind ``jobs/export.py``: a student as files that run without this project."""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import nn

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.data.augment import MEAN, STD
from raysweep.orchestration import terminal
from raysweep.orchestration.compute.models import SegmentorModel
from raysweep.orchestration.compute.provenance import NAME as LICENCES
from raysweep.orchestration.compute.provenance import Origin, as_text, note, origins_of, tags
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage, write_atomically
from raysweep.orchestration.tasks.prediction import find_model
from raysweep.orchestration.tracking.client import (
    attempt,
    connect,
    experiment_id,
    tracked_by_default,
)

PROGRAM, ONNX = "student.pt2", "student.onnx"
TOLERANCE = 1e-3
"""Largest difference of a score between an exported student and the original."""
IMAGES = 2


class Exported(nn.Module):
    """A student with its normalisation: what is exported.

    Args:
        network: the student, in eval mode on the CPU.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return class scores ``(batch, classes, px, px)``.

        Args:
            image: ``(batch, 3, px, px)`` float32 RGB from 0 to 255.
        """
        scores: torch.Tensor = self.network((image / 255 - self.mean) / self.std)
        return scores


def run_export(options: argparse.Namespace) -> int:
    """Export a student, with the terms of what it was made from; return the exit code.

    Raises:
        ConfigError: the model is no student, or an exported file does not do what it does.
    """
    storage = Storage(options.storage)
    chosen = find_model(storage, options.model)
    model, candidate = chosen.model, chosen.candidate
    if not isinstance(model, SegmentorModel):
        raise ConfigError(
            f"--model {options.model!r} is a projector on a representation; only students are "
            "exported: distil it (jobs/distill.py) and give distill/KEY"
        )
    console = terminal.console()
    model.load(candidate)
    student = Exported(model.network.to("cpu")).eval()
    px = model.px
    generator = rng.generator(0, "export")
    example = torch.randint(0, 256, (IMAGES, 3, px, px), generator=generator).float()
    stage = model.directory.parent.name
    origins = origins_of(StageStore(storage), stage, model.directory.name)
    if options.dry_run:
        console.print(f"{stage}/{model.directory.name}, step {candidate}, at {px} px")
        console.print(f"note: {note(origins)}")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    with terminal.quiet(options.out / "export.log") as screen:
        export_student(student, example, options.out, screen)
        write_atomically(options.out / LICENCES, as_text(origins).encode())
        if options.register:
            name = options.register
            made = _Made(student, example, model, candidate, origins)
            problem = attempt(lambda: _register(storage, name, made))
            screen.print(
                f"registered in MLflow as {name}"
                if problem is None
                else f"not registered, MLflow could not be reached: {problem}",
                soft_wrap=True,
            )
    console.print(f"input: float32 RGB from 0 to 255, (batch, 3, {px}, {px}); output: scores")
    console.print(f"note: {note(origins)}; see {options.out / LICENCES}", soft_wrap=True)
    return 0


def export_student(student: nn.Module, example: torch.Tensor, out: Path, screen: Console) -> None:
    """Write the student as ``student.pt2`` and ``student.onnx`` and compare their scores with it.

    Args:
        student: in eval mode on the CPU.
        example: two or more images that it takes.
        out: directory of the files.
        screen: told how far the scores differ.

    Raises:
        ConfigError: a score differs by more than :data:`TOLERANCE`.
    """
    with torch.no_grad():
        expected = student(example)
    program = torch.export.export(
        student, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    torch.export.save(program, out / PROGRAM)
    loaded = torch.export.load(out / PROGRAM).module()
    with torch.no_grad():
        _compare(PROGRAM, loaded(example), expected, screen)
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if not _installed(name)]
    if missing:
        screen.print(
            f"no {ONNX}: {', '.join(missing)} not installed (pip install raysweep[export])"
        )
        return
    _write_onnx(student, example, out)
    import onnxruntime

    session = onnxruntime.InferenceSession(out / ONNX, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": example.numpy()})
    _compare(ONNX, torch.from_numpy(scores), expected, screen)


def _write_onnx(student: nn.Module, example: torch.Tensor, out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            student,
            (example,),
            out / ONNX,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _compare(name: str, found: torch.Tensor, expected: torch.Tensor, screen: Console) -> None:
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE:
        raise ConfigError(
            f"{name}: scores differ from the student's by up to {difference:.2e}, more than "
            f"{TOLERANCE:.0e}; do not use the file"
        )
    screen.print(f"{name}: scores differ by at most {difference:.1e}")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class _Made(NamedTuple):
    """What is registered."""

    student: nn.Module
    example: torch.Tensor
    model: SegmentorModel
    candidate: int
    origins: list[Origin]


def _register(storage: Storage, name: str, made: _Made) -> None:
    """Log the student as an MLflow model, with its signature and an input, and register it."""
    import mlflow
    from mlflow.models import infer_signature

    images: Any = made.example.numpy().astype(np.float32)
    with torch.no_grad():
        scores = made.student(made.example).numpy()
    client = connect(storage)
    where = experiment_id(client, storage, "raysweep/distill")
    key, terms = made.model.directory.name, tags(made.origins)
    with (
        tracked_by_default(storage),
        mlflow.start_run(experiment_id=where, run_name=f"export {key[:8]}"),
    ):
        mlflow.set_tags({f"raysweep.stage.{made.model.directory.parent.name}": key, **terms})
        mlflow.log_param("candidate", made.candidate)
        logged = mlflow.pytorch.log_model(
            made.student,
            name="student",
            signature=infer_signature(images, scores),
            input_example=images,
            registered_model_name=name,
        )
        registry = mlflow.MlflowClient()
        for tag, value in terms.items():
            registry.set_model_version_tag(name, logged.registered_model_version, tag, value)
