"""Find a fitted model by what a user has at hand, and run it over a folder of images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from raysweep.config import ConfigError
from raysweep.evaluate.images import overlay
from raysweep.orchestration.mlflow_client import stages_of_run
from raysweep.orchestration.models import Model, load_model
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.tune import device_here

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
OVERLAY_ALPHA = 0.55


@dataclass(frozen=True)
class Chosen:
    """A fitted model and the checkpoint that its evaluation selected."""

    model: Model
    candidate: int


def find_model(storage: Storage, name: str) -> Chosen:
    """Return the model that a stage, an MLflow run or ``best`` points to.

    Raises:
        ConfigError: nothing of that name is finished in the storage.
    """
    evaluations = _evaluations(storage)
    if not evaluations:
        raise ConfigError(
            f"--storage {storage.uri!r} holds no finished evaluation; run a sweep first"
        )
    if name == "best":
        record = max(evaluations, key=lambda found: found["metrics"]["miou"])
        return _load(storage, record)
    kind, _, key = name.rpartition("/")
    matches = [
        record
        for record in evaluations
        if (kind in ("", "evaluate") and record["key"].startswith(key))
        or (kind in ("", "fit") and record["inputs"]["fit"].startswith(key))
    ]
    if not matches and not kind:
        wanted = stages_of_run(storage, name).get("evaluate")
        matches = [record for record in evaluations if record["key"] == wanted]
    if not matches:
        raise ConfigError(
            f"--model {name!r}: no such stage or MLflow run in {storage.uri}; "
            f"try best, or evaluate/{evaluations[0]['key']}"
        )
    if len({record["inputs"]["fit"] for record in matches}) > 1:
        raise ConfigError(f"--model {name!r} fits {len(matches)} stages; give more of the key")
    return _load(storage, matches[0])


def predict_folder(chosen: Chosen, *, images: Path, out: Path) -> int:
    """Write ``masks/<name>.png`` and ``overlays/<name>.png`` at each image's own size.

    Returns:
        The number of images.

    Raises:
        ConfigError: the folder holds no image, or one that cannot be read; names the file.
    """
    if not images.is_dir():
        raise ConfigError(f"--images {str(images)!r} is not a folder")
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ConfigError(f"--images {str(images)!r} holds no image ({', '.join(SUFFIXES)})")
    palette = chosen.model.info.palette
    for folder in ("masks", "overlays"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for path in paths:
        pixels = _read(path)
        labels = _labels(chosen, pixels)
        mask = Image.fromarray(labels, mode="P")
        mask.putpalette([value for colour in palette for value in colour])
        mask.save(out / "masks" / f"{path.stem}.png")
        drawn = overlay(pixels, labels, palette, alpha=OVERLAY_ALPHA)
        Image.fromarray(drawn).save(out / "overlays" / f"{path.stem}.png")
    return len(paths)


def _labels(chosen: Chosen, pixels: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    height, width = pixels.shape[:2]
    labels = chosen.model.predict(image, candidate=chosen.candidate, out_px=(height, width))
    return labels[0].cpu().numpy()


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; remove or replace it") from None


def _evaluations(storage: Storage) -> list[dict[str, Any]]:
    if not storage.exists("stages", "evaluate"):
        return []
    store = StageStore(storage)
    keys = store.finished("evaluate")
    return [
        json.loads((store.directory_of("evaluate", key) / "stage.json").read_text()) for key in keys
    ]


def _load(storage: Storage, record: dict[str, Any]) -> Chosen:
    model = load_model(StageStore(storage), record["inputs"]["fit"], device_here())
    return Chosen(model, record["metrics"]["candidate"])
