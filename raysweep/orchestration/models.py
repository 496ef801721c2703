"""Fitted models and distilled students, read back from the stage store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import nn

from raysweep.config import from_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.distill.student import label_images
from raysweep.distill.student_config import StudentConfig, build_student
from raysweep.features.generator import GeneratorFeatures
from raysweep.features.representation import RawColour, Representation, TrunkFeatures
from raysweep.fewshot.ensemble import Ensemble, Majority
from raysweep.fewshot.projector import FitConfig, predict
from raysweep.nets.pixel_mlps import PixelMlp, pixel_widths
from raysweep.nets.projectors import build_projector
from raysweep.orchestration.stages import Stage, StageStore
from raysweep.represent.config import RepresentConfig
from raysweep.represent.generators import read_generator
from raysweep.represent.weights import read_trunk

TRUNK = "trunk.safetensors"
GENERATOR = "generator.safetensors"
CODES = "codes.safetensors"


class Model(Protocol):
    """What labels images: a projector on its frozen representation, or a student.

    Attributes:
        directory: of its stage.
        info: of the dataset that named its classes.
        takes_codes: whether it labels codes of a generator in place of images.
    """

    directory: Path
    info: DatasetInfo

    @property
    def takes_codes(self) -> bool:
        """Whether inputs are codes of a generator."""

    def predict(
        self, inputs: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """Return uint8 labels ``(n, height, width)``.

        Args:
            inputs: uint8 images ``(n, 3, h, w)``, or codes ``(n, length)`` if it takes codes.
            candidate: step of the checkpoint.
            out_px: side, or height and width, of the result.
        """


@dataclass
class FittedModel:
    """A fitted projector on its frozen representation; see :class:`Model`."""

    representation: Representation
    projector: nn.Module
    directory: Path
    config: FitConfig
    info: DatasetInfo

    @property
    def takes_codes(self) -> bool:
        """Whether inputs are codes of a generator."""
        return self.representation.takes_codes

    def load(self, candidate: int) -> None:
        """Give the projector the weights of a checkpoint."""
        self.projector.load_state_dict(candidate_tensors(self.directory, candidate))

    def predict(
        self, inputs: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """See :meth:`Model.predict`."""
        self.load(candidate)
        return predict(
            self.representation,
            self.projector,
            inputs,
            resolution=self.config.resolution,
            out_px=out_px,
        )


@dataclass
class StudentModel:
    """A distilled student; see :class:`Model`."""

    network: nn.Module
    directory: Path
    config: StudentConfig
    info: DatasetInfo

    takes_codes = False

    def load(self, candidate: int) -> None:
        """Give the network the weights of a checkpoint."""
        self.network.load_state_dict(candidate_tensors(self.directory, candidate))

    def predict(
        self, inputs: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """See :meth:`Model.predict`."""
        self.load(candidate)
        return label_images(self.network, inputs, px=self.config.resolution, out_px=out_px)


def candidates_of(model: Model) -> tuple[int, ...]:
    """Return the steps of a model's checkpoints, ascending."""
    files = model.directory.glob("candidate-*.safetensors")
    return tuple(sorted(int(file.stem.removeprefix("candidate-")) for file in files))


def candidate_tensors(directory: Path, candidate: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint."""
    return safetensors.torch.load_file(directory / f"candidate-{candidate}.safetensors")


def load_model(
    store: StageStore, key: str, device: torch.device, *, stage: str = "fit"
) -> FittedModel | StudentModel:
    """Return what the stage with that key left.

    Args:
        store: where the stage is.
        key: of the stage.
        device: where the model is to live.
        stage: ``fit`` or ``distill``.
    """
    return load_student(store, key, device) if stage == "distill" else load_fit(store, key, device)


def load_fit(store: StageStore, key: str, device: torch.device) -> FittedModel:
    """Return the model that the fit stage with that key left."""
    directory, record, info = _opened(store, "fit", key)
    config = from_dict(FitConfig, record["config"]["fit"])
    representation = representation_of(
        store, record["inputs"]["pretrain"], device, layers=config.layers
    )
    projector = _untrained(config, representation.channels, len(info.classes))
    return FittedModel(representation, projector.to(device).eval(), directory, config, info)


def load_student(store: StageStore, key: str, device: torch.device) -> StudentModel:
    """Return the student that the distill stage with that key left."""
    directory, record, info = _opened(store, "distill", key)
    config = from_dict(StudentConfig, record["config"]["student"])
    network = build_student(config, len(info.classes)).to(device).eval()
    return StudentModel(network.requires_grad_(False), directory, config, info)


def _opened(store: StageStore, stage: str, key: str) -> tuple[Path, dict[str, Any], DatasetInfo]:
    directory = store.directory_of(stage, key)
    record = json.loads((directory / "stage.json").read_text())
    info = from_dict(DatasetInfo, json.loads((directory / "dataset.json").read_text()))
    return directory, record, info


def _untrained(config: FitConfig, channels: Sequence[int], num_classes: int) -> nn.Module:
    if config.method == "projector":
        return build_projector(config.projector, channels, num_classes)
    widths = config.pixel.widths or pixel_widths(num_classes)
    members = [PixelMlp(channels, widths, num_classes) for _ in range(config.pixel.members)]
    return Majority(Ensemble(members))


def read_codes(store: StageStore, stage: Stage) -> torch.Tensor:
    """Return the codes ``(images, length)`` that a project stage left, in its images' order."""
    return safetensors.torch.load_file(store.directory(stage) / CODES)["codes"]


def representation_of(
    store: StageStore, key: str, device: torch.device, *, layers: Sequence[str] | None = None
) -> Representation:
    """Return the frozen representation that the pretrain stage with that key left.

    Args:
        store: where the stage is.
        key: of the stage.
        device: where the representation is to live.
        layers: of a generator; all convolutions if left out.
    """
    directory = store.directory_of("pretrain", key)
    record = json.loads((directory / "stage.json").read_text())
    config = from_dict(RepresentConfig, record["config"]["represent"])
    if config.method == "rgb":
        return RawColour()
    if config.generative:
        return GeneratorFeatures(read_generator(directory / GENERATOR).to(device), layers)
    return TrunkFeatures(read_trunk(directory / TRUNK).to(device))
