"""Fitted models, read back from the stage store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from raysweep.config import from_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.features.representation import RawColour, Representation, TrunkFeatures
from raysweep.fewshot.projector import FitConfig, predict
from raysweep.nets.projectors import build_projector
from raysweep.orchestration.stages import StageStore
from raysweep.represent.config import RepresentConfig
from raysweep.represent.weights import read_trunk

TRUNK = "trunk.safetensors"


@dataclass(frozen=True)
class Model:
    """A fitted projector on its frozen representation."""

    representation: Representation
    projector: nn.Module
    directory: Path
    config: FitConfig
    info: DatasetInfo

    def predict(
        self, images: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """Return uint8 labels ``(n, height, width)`` for uint8 images ``(n, 3, h, w)``."""
        state = safetensors.torch.load_file(self.directory / f"candidate-{candidate}.safetensors")
        self.projector.load_state_dict(state)
        return predict(
            self.representation,
            self.projector,
            images,
            resolution=self.config.resolution,
            out_px=out_px,
        )


def load_model(store: StageStore, key: str, device: torch.device) -> Model:
    """Return the model that the fit stage with that key left."""
    directory = store.directory_of("fit", key)
    record = json.loads((directory / "stage.json").read_text())
    info = from_dict(DatasetInfo, json.loads((directory / "dataset.json").read_text()))
    config = from_dict(FitConfig, record["config"]["fit"])
    representation = representation_of(store, record["inputs"]["pretrain"], device)
    projector = build_projector(config.projector, representation.channels, len(info.classes))
    return Model(representation, projector.to(device).eval(), directory, config, info)


def representation_of(store: StageStore, key: str, device: torch.device) -> Representation:
    """Return the frozen representation that the pretrain stage with that key left."""
    directory = store.directory_of("pretrain", key)
    record = json.loads((directory / "stage.json").read_text())
    config = from_dict(RepresentConfig, record["config"]["represent"])
    if config.method == "rgb":
        return RawColour()
    return TrunkFeatures(read_trunk(directory / TRUNK).to(device))
