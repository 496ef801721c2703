"""How long must an image be looked for in a generator before its labels are good?

GanOrCon's table 3 in shape: the direct score of DatasetGAN's ensemble on StyleGAN2 features over
the iterations of the latent optimisation, which every labelled and every test image goes through.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from raysweep import presets
from raysweep.evaluate.paper_tables import GANORCON_TABLE_3
from raysweep.evaluate.papers import paper_cell
from raysweep.orchestration.planning.plan import Cell, Changes, Drawing
from search_spaces.projector import ENSEMBLE_FIT, GENERATED_PX

BASE = presets.PRESETS

STEPS = "project.steps"
SPACE: dict[str, dict[str, Any]] = {
    "smoke": {STEPS: tune.grid_search([2, 4])},
    "demo": {STEPS: tune.grid_search([19, 38, 75, 150])},
    "paper": {STEPS: tune.grid_search([1000, 5000, 10_000, 20_000])},
}

METRIC = ("val_miou", "max")
BASELINES: dict[str, str] = {}
REPEATS = {"smoke": 1, "demo": 3, "paper": 3}
PAPERS = (GANORCON_TABLE_3,)
ROW_AXIS, COLUMN_AXIS = "features", "iterations"
FIGURE: Drawing = "lines"
CURVES: tuple[str, ...] = ()
ROW = "StyleGAN2 + MLP ensemble"


def cells(preset: str) -> list[Cell]:
    """Return one cell per number of iterations."""
    return [place(preset, {STEPS: steps}) for steps in SPACE[preset][STEPS]["grid_search"]]


def suggest(preset: str, trial: Any) -> dict[str, Any]:
    """Choose one of the grid's numbers of iterations."""
    return {STEPS: trial.suggest_categorical(STEPS, SPACE[preset][STEPS]["grid_search"])}


def place(preset: str, changes: Changes) -> Cell:
    """Return the cell of a number of iterations."""
    generator = {
        "pretrain.method": "stylegan2",
        "fit.resolution": GENERATED_PX[preset],
        "fit.method": "pixel_ensemble",
        **ENSEMBLE_FIT[preset],
    }
    rank = SPACE[preset][STEPS]["grid_search"].index(changes[STEPS])
    paper = paper_cell(GANORCON_TABLE_3, {"features": 0, "iterations": rank})
    return Cell(ROW, str(changes[STEPS]), generator | dict(changes), paper)


def repeat(index: int) -> dict[str, Any]:
    """Return what tells a repeat from another: seeds of the fit and the labelled subset."""
    return {"fit.seed": index, "fit.pixel.seed": index, "data.draw": index}
