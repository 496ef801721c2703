"""Which resolution pays: in pretraining, in the segmentor, or in both?

The grid of GanOrCon's appendix E: three pretraining by three segmentor resolutions under the MLP
projector, with raw colour and random weights as further rows. Every cell is repeated over projector
seeds and draws of the labelled subset; the three pretrainings are shared by all of them, so the
error bars do not cover the pretraining seed (``--set pretrain.seed=1`` trains another three).

Cost of the demo preset: see the README. Expected: the segmentor's resolution matters most, and
pretrained features beat random weights where the segmentor sees 64 px.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ray import tune

from raysweep import presets
from raysweep.evaluate.paper_tables import GANORCON_APPENDIX_E
from raysweep.evaluate.papers import paper_cell, transpose
from raysweep.experiment import Experiment
from raysweep.orchestration.planning.plan import Cell, Changes, Drawing, product
from raysweep.paper_presets import ganorcon
from raysweep.paper_presets.ganorcon import FFHQ_IMAGES

# the appendix pretrains on FFHQ
BASE: dict[str, Callable[[], Experiment]] = presets.PRESETS | {
    "paper": partial(ganorcon, images=FFHQ_IMAGES)
}

PRETRAIN, SEGMENTOR = "pretrain.resolution", "fit.resolution"

SPACE: dict[str, dict[str, Any]] = {
    "smoke": {PRETRAIN: tune.grid_search([16, 24, 32]), SEGMENTOR: tune.grid_search([8, 16, 32])},
    "demo": {PRETRAIN: tune.grid_search([16, 24, 32]), SEGMENTOR: tune.grid_search([16, 32, 64])},
    "paper": {
        PRETRAIN: tune.grid_search([96, 256, 512]),
        SEGMENTOR: tune.grid_search([96, 256, 512]),
    },
}

METRIC = ("val_miou", "max")

# rows to which no pretraining resolution applies, crossed with the columns only
BASELINES = {"raw colour": "rgb", "random weights": "random"}

REPEATS = {"smoke": 2, "demo": 3, "paper": 3}

PAPERS = (transpose(GANORCON_APPENDIX_E),)
ROW_AXIS, COLUMN_AXIS = "pretraining", "segmentor px"
FIGURE: Drawing = "heat map"
CURVES: tuple[str, ...] = ()


def cells(preset: str) -> list[Cell]:
    """Return the grid, baselines first; the method is an axis because the baselines change it."""
    space = SPACE[preset]
    pretraining, segmentor = (space[key]["grid_search"] for key in (PRETRAIN, SEGMENTOR))
    found = [
        Cell(label, str(px), {"pretrain.method": method, SEGMENTOR: px})
        for label, method in BASELINES.items()
        for px in segmentor
    ]
    for changes in product(space):
        ranks = {
            "moco": pretraining.index(changes[PRETRAIN]),
            "segmentor": segmentor.index(changes[SEGMENTOR]),
        }
        method = {"pretrain.method": "moco"}
        row, column = f"{changes[PRETRAIN]} px", str(changes[SEGMENTOR])
        found.append(Cell(row, column, method | changes, paper_cell(GANORCON_APPENDIX_E, ranks)))
    return found


def suggest(preset: str, trial: Any) -> dict[str, Any]:
    """Choose one of the grid's configurations."""
    return {
        key: trial.suggest_categorical(key, domain["grid_search"])
        for key, domain in SPACE[preset].items()
    }


def place(preset: str, changes: Changes) -> Cell:
    """Return the grid's cell with that configuration."""
    wanted = {"pretrain.method": "moco", **changes}
    return next(cell for cell in cells(preset) if dict(cell.changes) == wanted)


def repeat(index: int) -> dict[str, Any]:
    """Return what tells a repeat from another: the projector's seed and the labelled subset."""
    return {"fit.seed": index, "data.draw": index}
