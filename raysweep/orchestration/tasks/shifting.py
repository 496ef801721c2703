"""The job behind ``jobs/robustness.py``: what is left of a model's score on shifted images."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.nn import functional as F

from raysweep.config import ConfigError, from_dict, override
from raysweep.data.dataset import Dataset, open_dataset
from raysweep.evaluate.figures import shift_figure
from raysweep.evaluate.images import Bytes, colourise
from raysweep.evaluate.robustness import ShiftScore, common_columns, shift_curve
from raysweep.features.generator import GeneratorFeatures
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.nets.gans import Generator
from raysweep.orchestration import terminal
from raysweep.orchestration.compute import projecting
from raysweep.orchestration.compute.chain import file_digest
from raysweep.orchestration.compute.distances import image_distance
from raysweep.orchestration.compute.models import FittedModel, SegmentorModel
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.prediction import Chosen, find_model
from raysweep.presets import PRESETS

TABLE, FIGURE = "robustness.csv", "robustness.png"
PROGRESS_SECONDS = 5.0
Tell = Callable[[str], None]


@dataclass
class Family:
    """A model that labels moved images of the test split.

    Attributes:
        label: how table and figure call it.
        chosen: the model and its checkpoint.
        px: side of its labels.
        project: how moved images are looked for in its generator; None if it takes images.
        tell: told how far a search is.
        examples: labels of the first image, one ``(px, px)`` per prediction.
    """

    label: str
    chosen: Chosen
    px: int
    project: ProjectionConfig | None
    tell: Tell
    examples: list[torch.Tensor] = field(default_factory=list)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 labels ``(n, px, px)`` of uint8 images ``(n, 3, px, px)``."""
        inputs = images if self.project is None else self._codes(images, self.project)
        model, candidate = self.chosen.model, self.chosen.candidate
        labels = model.predict(inputs, candidate=candidate, out_px=self.px).cpu()
        self.examples.append(labels[0])
        return labels

    def _codes(self, images: torch.Tensor, config: ProjectionConfig) -> torch.Tensor:
        generator = generator_of(self.chosen)
        images = resized(images, generator.config.resolution)
        distance = image_distance(config, device=generator.mapping.w_avg.device)
        parts, count, number = [], len(images), len(self.examples) + 1
        for first in range(0, count, projecting.BATCH):
            batch = images[first : first + projecting.BATCH]

            def tell(share: float, first: int = first, size: int = len(batch)) -> None:
                done = first + int(share * size)
                self.tell(f"{self.label}: search {number}, {done} of {count} images")

            found = projecting.search(
                generator, batch, config, distance=distance, first=first, tell=tell
            )
            parts.append(found["codes"])
        return torch.cat(parts)


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the job's flags."""
    flags.add_argument("--model", required=True, action="append", metavar="STAGE_OR_RUN")
    flags.add_argument("--data", required=True, metavar="DIR", help="as for a sweep")
    flags.add_argument("--shifts", type=int, nargs="+", default=[0, 1, 2, 4, 8], metavar="PX")
    flags.add_argument(
        "--images", type=int, default=20, metavar="N", help="first test images (default: 20)"
    )
    flags.add_argument(
        "--px",
        type=int,
        metavar="PX",
        help="side at which images are moved and scored (default: that of the largest model)",
    )
    flags.add_argument(
        "--distance-weights",
        metavar="FILE",
        help="weights of the distance that found a generator's codes, if it was trunk or lpips",
    )
    flags.add_argument(
        "--preset", choices=tuple(PRESETS), default="demo", help="what built-in data are rendered"
    )
    flags.add_argument("--storage", default="runs/", metavar="PATH_OR_URI")


def run_robustness(options: argparse.Namespace) -> int:
    """Score the models on shifted images; return the exit code.

    Raises:
        ConfigError: the input cannot be used; nothing has been computed.
    """
    storage, console = Storage(options.storage), terminal.console()
    dataset = open_dataset(
        options.data,
        cache=storage.local("data"),
        builtin=PRESETS[options.preset]().data.builtin,
    )
    families = _families(options, storage, dataset, console)
    px, shifts = families[0].px, sorted(set(options.shifts))
    names = dataset.names("test")[: options.images]
    images = dataset.images("test", px=px, names=names)
    masks = dataset.masks("test", px=px, names=names)
    curves: dict[str, list[ShiftScore]] = {}
    for family in families:
        console.print(f"{family.label}: {len(names)} images, {len(shifts)} shifts at {px} px")
        curves[family.label] = shift_curve(
            family.predict, images, masks, shifts, len(dataset.info.classes)
        )
    _print_table(curves, shifts, console)
    palette = dataset.info.palette
    strips = {f.label: colourise(torch.stack(f.examples).numpy(), palette) for f in families}
    folder = _write(storage, curves, strips)
    console.print(f"{TABLE} and {FIGURE} in {folder}")
    return 0


def resized(images: torch.Tensor, px: int) -> torch.Tensor:
    """Return uint8 images ``(n, 3, px, px)``, antialiased; those of that size as they are."""
    if images.shape[2:] == (px, px):
        return images
    small = F.interpolate(images.float(), size=(px, px), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte()


def generator_of(chosen: Chosen) -> Generator:
    """Return the generator whose codes a model takes."""
    model = chosen.model
    assert isinstance(model, FittedModel)
    assert isinstance(model.representation, GeneratorFeatures)
    return model.representation.generator


def projection_of(store: StageStore, chosen: Chosen, weights: str | None) -> ProjectionConfig:
    """Return how the codes on which a model was scored have been found.

    Args:
        store: where its evaluation is.
        chosen: a model that takes codes.
        weights: path of the file of the distance, of which stages know only the content.

    Raises:
        ConfigError: the search is not in the storage, or ``weights`` is not the file of then.
    """
    key = chosen.model.directory.name
    for evaluation in store.finished("evaluate"):
        inputs = _record(store, "evaluate", evaluation)["inputs"]
        if inputs.get("fit") == key and "test codes" in inputs:
            return _settings(_record(store, "project", inputs["test codes"]), weights)
    raise ConfigError(f"--model fit/{key}: no evaluation with projected test images is finished")


def _settings(record: dict[str, Any], weights: str | None) -> ProjectionConfig:
    config = from_dict(ProjectionConfig, record["config"]["project"])
    if config.distance == "pixels":
        return config
    if weights is None or file_digest("--distance-weights", weights) != config.weights:
        raise ConfigError(
            f"--distance-weights {weights!r}: project/{record['key']} measured "
            f"{config.distance!r} with a file of another content; give that one"
        )
    return override(config, {"weights": weights})


def _families(
    options: argparse.Namespace, storage: Storage, dataset: Dataset, console: Console
) -> list[Family]:
    """Find the models and check everything that can be checked before the work."""
    if options.images < 1 or not dataset.info.counts["test"]:
        raise ConfigError(
            f"--images {options.images}: {dataset.info.name} has "
            f"{dataset.info.counts['test']} labelled test images; at least one is needed"
        )
    store = StageStore(storage)
    named = [find_model(storage, name) for name in options.model]
    found = list({chosen.model.directory: chosen for chosen in named}.values())
    px = options.px or max(_resolution(chosen) for chosen in found)
    try:
        common_columns(options.shifts, px)
    except ValueError as error:
        raise ConfigError(f"--{error}, or a larger --px") from None
    throttle = terminal.Throttle(PROGRESS_SECONDS)

    def tell(text: str) -> None:
        if throttle.ready():
            console.print(text)

    return [_family(chosen, store, dataset, px, tell, options.distance_weights) for chosen in found]


def _family(
    chosen: Chosen, store: StageStore, dataset: Dataset, px: int, tell: Tell, weights: str | None
) -> Family:
    model = chosen.model
    if model.info.classes != dataset.info.classes:
        raise ConfigError(
            f"--model {model.directory.name}: its classes are {', '.join(model.info.classes)}; "
            f"--data {dataset.info.name!r} has {', '.join(dataset.info.classes)}"
        )
    project = projection_of(store, chosen, weights) if model.takes_codes else None
    if project is not None:
        image_distance(project, device="cpu")  # a file that does not serve is refused here
    return Family(_label(chosen, store), chosen, px, project, tell)


def _resolution(chosen: Chosen) -> int:
    assert isinstance(chosen.model, FittedModel | SegmentorModel)
    return chosen.model.px


def _label(chosen: Chosen, store: StageStore) -> str:
    directory = chosen.model.directory
    if not isinstance(chosen.model, FittedModel):
        return f"student {directory.name[:8]}"
    inputs = json.loads((directory / "stage.json").read_text())["inputs"]
    method = _record(store, "pretrain", inputs["pretrain"])["config"]["represent"]["method"]
    return f"{method} {directory.name[:8]}"


def _record(store: StageStore, name: str, key: str) -> dict[str, Any]:
    text = (store.directory_of(name, key) / "stage.json").read_text()
    record: dict[str, Any] = json.loads(text)
    return record


def _print_table(
    curves: dict[str, list[ShiftScore]], shifts: Sequence[int], console: Console
) -> None:
    width = max(len("mIoU at shift"), *(len(label) for label in curves))
    console.print(f"{'mIoU at shift':{width}} " + "".join(f"{shift:>8}" for shift in shifts))
    for label, points in curves.items():
        console.print(f"{label:{width}} " + "".join(f"{point.miou:8.3f}" for point in points))


def _write(storage: Storage, curves: dict[str, list[ShiftScore]], strips: dict[str, Bytes]) -> str:
    folder: Path = storage.local("robustness")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("model", "shift", "miou"))
        rows.writerows((label, *point) for label, points in curves.items() for point in points)
    shift_figure(curves, strips, folder / FIGURE)
    if not storage.is_local:
        for name in (TABLE, FIGURE):
            storage.upload(folder / name, "robustness", name)
    return storage.address("robustness")
