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

from raysweep.config import ConfigError, from_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.distill.student import label_images
from raysweep.distill.student_config import StudentConfig, build_student
from raysweep.features.generator import GeneratorFeatures
from raysweep.features.representation import RawColour, Representation, TrunkFeatures
from raysweep.fewshot.ensemble import Ensemble, Majority
from raysweep.fewshot.generated import block_outputs
from raysweep.fewshot.matching_config import MatchingConfig
from raysweep.fewshot.projector import FitConfig, predict
from raysweep.fewshot.segmentors import build_segmentor
from raysweep.nets.fpn import Fpn
from raysweep.nets.pixel_mlps import PixelMlp, pixel_widths
from raysweep.nets.projectors import build_projector
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.represent.config import RepresentConfig
from raysweep.represent.generators import read_generator
from raysweep.represent.weights import read_trunk

TRUNK = "trunk.safetensors"
GENERATOR = "generator.safetensors"
CODES = "codes.safetensors"
ANNOTATOR, SEGMENTOR = "annotator.", "segmentor."
Tensors = dict[str, torch.Tensor]


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
    """A fitted projector, or an annotator, on its frozen representation; see :class:`Model`.

    Attributes:
        px: side at which it was fitted.
        part: what the names of its tensors begin with, where others lie in the same files.
    """

    representation: Representation
    projector: nn.Module
    directory: Path
    px: int
    info: DatasetInfo
    part: str = ""

    @property
    def takes_codes(self) -> bool:
        """Whether inputs are codes of a generator."""
        return self.representation.takes_codes

    def load(self, candidate: int) -> None:
        """Give the projector the weights of a checkpoint."""
        tensors = candidate_tensors(self.directory, candidate, part=self.part)
        self.projector.load_state_dict(tensors)

    def predict(
        self, inputs: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """See :meth:`Model.predict`."""
        self.load(candidate)
        return predict(
            self.representation,
            self.projector,
            inputs,
            resolution=self.px,
            out_px=out_px,
        )


@dataclass
class SegmentorModel:
    """A network that labels images by itself, distilled or matched; see :class:`Model`.

    Attributes:
        px: side at which it was trained.
        part: what the names of its tensors begin with, where others lie in the same files.
    """

    network: nn.Module
    directory: Path
    px: int
    info: DatasetInfo
    part: str = ""

    takes_codes = False

    def load(self, candidate: int) -> None:
        """Give the network the weights of a checkpoint."""
        tensors = candidate_tensors(self.directory, candidate, part=self.part)
        self.network.load_state_dict(tensors)

    def predict(
        self, inputs: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """See :meth:`Model.predict`."""
        self.load(candidate)
        return label_images(self.network, inputs, px=self.px, out_px=out_px)


def candidates_of(model: Model) -> tuple[int, ...]:
    """Return the steps of a model's checkpoints, ascending."""
    files = model.directory.glob("candidate-*.safetensors")
    return tuple(sorted(int(file.stem.removeprefix("candidate-")) for file in files))


def candidate_tensors(directory: Path, candidate: int, *, part: str = "") -> Tensors:
    """Return the tensors of a checkpoint whose names begin with ``part``, without it."""
    every = safetensors.torch.load_file(directory / f"candidate-{candidate}.safetensors")
    return {
        name.removeprefix(part): tensor for name, tensor in every.items() if name.startswith(part)
    }


def load_model(
    store: StageStore, key: str, device: torch.device, *, stage: str = "fit"
) -> FittedModel | SegmentorModel:
    """Return what the stage with that key left; of gradient matching, the segmentor if it has one.

    Args:
        store: where the stage is.
        key: of the stage.
        device: where the model is to live.
        stage: ``fit`` or ``distill``.
    """
    if stage == "distill":
        return load_student(store, key, device)
    directory, record, info = _opened(store, "fit", key)
    config = from_dict(FitConfig, record["config"]["fit"])
    if config.method != "matching" or not config.matching.segments:
        return load_fit(store, key, device)
    network = build_segmentor(config.matching.segmentor, len(info.classes), trunk=None)
    px = config.matching.resolution or _generator_px(store, record["inputs"]["pretrain"])
    frozen = network.to(device).eval().requires_grad_(False)
    return SegmentorModel(frozen, directory, px, info, part=SEGMENTOR)


def load_fit(store: StageStore, key: str, device: torch.device) -> FittedModel:
    """Return what the fit stage with that key left on its representation: what can teach.

    Raises:
        ConfigError: it left a segmentor only.
    """
    directory, record, info = _opened(store, "fit", key)
    config, pretrain = from_dict(FitConfig, record["config"]["fit"]), record["inputs"]["pretrain"]
    if config.method == "matching":
        if not config.matching.annotates:
            raise ConfigError(
                f"fit/{key}: trained by objective {config.matching.objective!r}, which has no "
                "annotator; give another fit as teacher"
            )
        return _annotator(store, pretrain, device, config.matching, directory, info)
    representation = representation_of(store, pretrain, device, layers=config.layers)
    projector = _untrained(config, representation.channels, len(info.classes)).to(device).eval()
    return FittedModel(representation, projector, directory, config.resolution, info)


def _annotator(
    store: StageStore,
    pretrain: str,
    device: torch.device,
    config: MatchingConfig,
    directory: Path,
    info: DatasetInfo,
) -> FittedModel:
    generator = read_generator(store.directory_of("pretrain", pretrain) / GENERATOR).to(device)
    features = GeneratorFeatures(generator, config.layers or block_outputs(generator))
    network = Fpn(config.annotator, features.channels, len(info.classes)).to(device).eval()
    px = generator.config.resolution
    return FittedModel(features, network, directory, px, info, part=ANNOTATOR)


def _generator_px(store: StageStore, pretrain: str) -> int:
    path = store.directory_of("pretrain", pretrain) / GENERATOR
    return read_generator(path).config.resolution


def load_student(store: StageStore, key: str, device: torch.device) -> SegmentorModel:
    """Return the student that the distill stage with that key left."""
    directory, record, info = _opened(store, "distill", key)
    config = from_dict(StudentConfig, record["config"]["student"])
    network = build_student(config, len(info.classes)).to(device).eval()
    return SegmentorModel(network.requires_grad_(False), directory, config.resolution, info)


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
