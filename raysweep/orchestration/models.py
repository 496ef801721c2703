"""Fitted models, read back from the stage store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from raysweep.config import from_dict
from raysweep.data.dataset import DatasetInfo
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


@dataclass(frozen=True)
class Model:
    """A fitted projector on its frozen representation."""

    representation: Representation
    projector: nn.Module
    directory: Path
    config: FitConfig
    info: DatasetInfo

    def predict(
        self, inputs: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """Return uint8 labels ``(n, height, width)``.

        Args:
            inputs: uint8 images ``(n, 3, h, w)``, or their codes ``(n, length)`` if the
                representation is a generator.
            candidate: step of the checkpoint.
            out_px: side, or height and width, of the result.
        """
        state = safetensors.torch.load_file(self.directory / f"candidate-{candidate}.safetensors")
        self.projector.load_state_dict(state)
        return predict(
            self.representation,
            self.projector,
            inputs,
            resolution=self.config.resolution,
            out_px=out_px,
        )


def load_model(store: StageStore, key: str, device: torch.device) -> Model:
    """Return the model that the fit stage with that key left."""
    directory = store.directory_of("fit", key)
    record = json.loads((directory / "stage.json").read_text())
    info = from_dict(DatasetInfo, json.loads((directory / "dataset.json").read_text()))
    config = from_dict(FitConfig, record["config"]["fit"])
    representation = representation_of(
        store, record["inputs"]["pretrain"], device, layers=config.layers
    )
    projector = _untrained(config, representation.channels, len(info.classes))
    return Model(representation, projector.to(device).eval(), directory, config, info)


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
    if config.method == "stylegan2":
        return GeneratorFeatures(read_generator(directory / GENERATOR).to(device), layers)
    return TrunkFeatures(read_trunk(directory / TRUNK).to(device))
