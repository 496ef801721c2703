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
from raysweep.orchestration.compute.models import Model, load_fit, load_model
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tracking.client import stages_of_run

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
    matches = _matching(storage, evaluations, name)
    if not matches:
        raise ConfigError(
            f"--model {name!r}: no such stage or MLflow run in {storage.uri}; "
            f"try best, or evaluate/{evaluations[0]['key']}"
        )
    if len({_model_of(record) for record in matches}) > 1:
        raise ConfigError(f"--model {name!r} fits {len(matches)} stages; give more of the key")
    return _load(storage, min(matches, key=_by_annotator))  # a segmentor takes photographs


def find_teacher(storage: Storage, name: str) -> str:
    """Return the key of the fit stage that a stage, an MLflow run or ``best`` points to.

    Raises:
        ConfigError: nothing of that name is finished in the storage, or it is a student.
    """
    kind, _, key = name.rpartition("/")
    evaluations = [record for record in _evaluations(storage) if "fit" in record["inputs"]]
    if name == "best":
        able = [record for record in evaluations if _teaches(storage, record["inputs"]["fit"])]
        best = max(able, key=lambda found: found["metrics"]["miou"], default=None)
        found = set() if best is None else {best["inputs"]["fit"]}
    else:
        records = _matching(storage, evaluations, name)
        found = {record["inputs"]["fit"] for record in records}
        if kind in ("", "fit"):
            keys = StageStore(storage).finished("fit")
            found |= {fit for fit in keys if fit.startswith(key)}
    if len(found) != 1:
        what = "fits several stages; give more of the key" if found else "is no finished fit"
        raise ConfigError(
            f"--teacher {name!r} {what} in {storage.uri}; give fit/KEY as a sweep's report has it, "
            "an MLflow run, or best"
        )
    return str(found.pop())


def _matching(
    storage: Storage, evaluations: list[dict[str, Any]], name: str
) -> list[dict[str, Any]]:
    """Return the evaluations that a stage, or else an MLflow run, belongs to."""
    kind, _, key = name.rpartition("/")
    matches = []
    for record in evaluations:
        stage, model = _model_of(record)
        of_model = kind in ("", stage) and model.startswith(key)
        if of_model or (kind in ("", "evaluate") and record["key"].startswith(key)):
            matches.append(record)
    if not matches and not kind:
        wanted = stages_of_run(storage, name).get("evaluate")
        matches = [record for record in evaluations if record["key"] == wanted]
    return matches


def _model_of(record: dict[str, Any]) -> tuple[str, str]:
    """Return stage and key of the model that an evaluation scored."""
    stage = "distill" if "distill" in record["inputs"] else "fit"
    return stage, record["inputs"][stage]


def predict_folder(chosen: Chosen, *, images: Path, out: Path) -> int:
    """Write ``masks/<name>.png`` and ``overlays/<name>.png`` at each image's own size.

    Returns:
        The number of images.

    Raises:
        ConfigError: the folder holds no image, or one that cannot be read; names the file. The
            model labels codes of a generator, not images.
    """
    if chosen.model.takes_codes:
        raise ConfigError(
            f"fit/{chosen.model.directory.name} labels what a generator makes, not photographs; "
            "distil it (jobs/pseudo_label.py, jobs/distill.py) and give the student"
        )
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
    stage, key = _model_of(record)
    store, device = StageStore(storage), device_here()
    model: Model
    if stage == "fit" and _by_annotator(record):
        model = load_fit(store, key, device)
    else:
        model = load_model(store, key, device, stage=stage)
    return Chosen(model, record["metrics"]["candidate"])


def _by_annotator(record: dict[str, Any]) -> bool:
    """Return whether an evaluation scored an annotator, which takes codes of a generator."""
    return bool(record["config"]["evaluate"].get("annotator"))


def _teaches(storage: Storage, key: str) -> bool:
    """Return whether a fit left more than a segmentor trained on labels alone."""
    path = StageStore(storage).directory_of("fit", key) / "stage.json"
    fit = json.loads(path.read_text())["config"]["fit"]
    return bool(fit.get("matching", {}).get("objective") != "supervised")
