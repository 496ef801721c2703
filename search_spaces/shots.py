"""How many labelled images does which method need?

The curve of LAGM's figure 2 in the layout of PFTGAN's tables 1 to 3: methods run down, the number
of labelled images across; every cell is repeated over draws of the labelled subset, the larger
subsets containing the smaller ones. Projectors, DatasetGAN's ensemble (directly, on test images
found in the generator), gradient matching, and a network trained on the labels alone.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from raysweep import presets
from raysweep.evaluate.paper_tables import (
    LAGM_FIGURE_2,
    PFTGAN_TABLE_1,
    PFTGAN_TABLE_2,
    PFTGAN_TABLE_3,
)
from raysweep.orchestration.planning.plan import Cell, Changes, Drawing
from search_spaces.matching import supervised
from search_spaces.projector import conv_changes

BASE = presets.MATCHING

METRIC = ("val_miou", "max")
BASELINES = {"labels alone": "supervised", "random weights + MLP": "random"}
REPEATS = {"smoke": 1, "demo": 3, "paper": 5}
PAPERS = (LAGM_FIGURE_2, PFTGAN_TABLE_1, PFTGAN_TABLE_2, PFTGAN_TABLE_3)
ROW_AXIS, COLUMN_AXIS = "method", "labelled images"
FIGURE: Drawing = "lines"
CURVES: tuple[str, ...] = ()

SHOTS = "data.shots"
SPACE: dict[str, dict[str, Any]] = {
    "smoke": {SHOTS: tune.grid_search([1, 4])},
    "demo": {SHOTS: tune.grid_search([1, 2, 4, 8, 16])},
    "paper": {SHOTS: tune.grid_search([1, 2, 5, 10, 30, 150])},
}
PROJECTOR_PX = {"smoke": 16, "demo": 64, "paper": 512}


def cells(preset: str) -> list[Cell]:
    """Return every method with every number of labelled images."""
    counts = SPACE[preset][SHOTS]["grid_search"]
    return [
        Cell(row, str(shots), changes | {SHOTS: shots})
        for row, changes in _methods(preset).items()
        for shots in counts
    ]


def _methods(preset: str) -> dict[str, dict[str, Any]]:
    projector = {
        "fit.method": "projector",
        "fit.resolution": PROJECTOR_PX[preset],
        "label.source": "unlabelled",
        "trunk": None,
    }
    moco = projector | {"pretrain.method": "moco"}
    unet = {"fit.matching.segmentor.network": "unet", "trunk": None}
    return {
        "labels alone": unet | supervised(preset),
        "random weights + MLP": projector | {"pretrain.method": "random"},
        "MoCo v2 + MLP": moco,
        "MoCo v2 + CONV": moco | conv_changes(preset),
        "DatasetGAN": {"fit.method": "pixel_ensemble", "trunk": None},
        "gradient matching": {},
    }


def suggest(preset: str, trial: Any) -> dict[str, Any]:
    """Choose a method and a number of labelled images of the grid."""
    methods = _methods(preset)
    chosen = methods[trial.suggest_categorical("method", list(methods))]
    counts = SPACE[preset][SHOTS]["grid_search"]
    return chosen | {SHOTS: trial.suggest_categorical(SHOTS, counts)}


def place(preset: str, changes: Changes) -> Cell:
    """Return the grid's cell with that configuration."""
    return next(cell for cell in cells(preset) if dict(cell.changes) == dict(changes))


def repeat(index: int) -> dict[str, Any]:
    """Return what tells a repeat from another: seeds of the fits and the labelled subset."""
    return {
        "fit.seed": index,
        "fit.pixel.seed": index,
        "fit.matching.seed": index,
        "data.draw": index,
    }
