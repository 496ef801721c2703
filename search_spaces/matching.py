"""Can an annotator be learnt from a few labels by matching gradients, and what does it depend on?

LAGM's ablations and rivals, a row each: how often the segmentor is updated (K, figure 4), whose
gradients are matched (tables 2 and C.8), the segmentor's state (C.2) and input size (C.9); MAML
(C.7), the inversion method (C.5), pseudo-labels (C.6), DatasetGAN's ensemble on the same labels,
and the segmentor trained on the labels alone (C.11). Columns are the networks that are scored: the
*annotator* on test images found in the generator, the *segmentor* that learnt with it, and a
*student* trained afterwards on images that the annotator labelled (table 1, lower part).
"""

from __future__ import annotations

from typing import Any

from raysweep import presets
from raysweep.evaluate.paper_tables import (
    LAGM_FIGURE_4,
    LAGM_TABLE_1B,
    LAGM_TABLE_2,
    LAGM_TABLE_C2,
    LAGM_TABLE_C5,
    LAGM_TABLE_C6,
    LAGM_TABLE_C7,
    LAGM_TABLE_C8,
    LAGM_TABLE_C9,
    LAGM_TABLE_C11,
)
from raysweep.orchestration.plan import Cell, Changes

BASE = presets.MATCHING

METRIC = ("val_miou", "max")
BASELINES = {"labels alone": "supervised", "labels alone, U-Net": "supervised"}
REPEATS = {"smoke": 1, "demo": 3, "paper": 3}
PAPERS = (
    LAGM_FIGURE_4,
    LAGM_TABLE_2,
    LAGM_TABLE_C8,
    LAGM_TABLE_C2,
    LAGM_TABLE_C9,
    LAGM_TABLE_C7,
    LAGM_TABLE_C5,
    LAGM_TABLE_C6,
    LAGM_TABLE_C11,
    LAGM_TABLE_1B,
)
ROW_AXIS, COLUMN_AXIS = "training", "scored"
FIGURE = "heat map"

ANNOTATOR, SEGMENTOR, STUDENT = "annotator", "segmentor", "student"
NETWORKS: dict[str, dict[str, Any]] = {
    ANNOTATOR: {"evaluate.annotator": True, "distilled": False},
    SEGMENTOR: {"evaluate.annotator": False, "distilled": False},
    STUDENT: {"evaluate.annotator": False, "distilled": True},
}
INTERVALS = {"smoke": [1, 2], "demo": [1, 4, 16], "paper": [1, 4, 16, 64]}
CURVES = tuple(f"K = {interval}" for interval in INTERVALS["paper"])
BLOCKS = {
    "smoke": ["output"],
    "demo": ["output", "res5+head", "all"],
    "paper": ["output", "res5+head", "res4..5+head", "res3..5+head", "res2..5+head", "all"],
}
UNET_BLOCKS = {
    "smoke": [],
    "demo": ["output", "all"],
    "paper": ["all", "up", "down", "input", "output", "u1", "u2"],
}
STATES = {
    "smoke": ["fixed"],
    "demo": ["scratch", "reinitialised", "pretrained", "fixed", "pretrained_fixed"],
    "paper": ["scratch", "reinitialised", "pretrained", "fixed", "pretrained_fixed"],
}
MANY = {"smoke": 8, "demo": 50, "paper": 1500}
"""Labelled images of the supervised row that shows what more labels would bring."""
SIZES = {"smoke": [8], "demo": [16], "paper": [128, 64]}
"""Sides of the segmentor's images below the generator's."""

Row = tuple[dict[str, Any], tuple[str, ...]]
"""Settings, and the networks to score."""


def cells(preset: str) -> list[Cell]:
    """Return the rows, the ablations first, each with the networks that it trains."""
    return [
        Cell(row, column, changes | NETWORKS[column], _paper_cell(row))
        for row, (changes, columns) in _rows(preset).items()
        for column in columns
    ]


def _rows(preset: str) -> dict[str, Row]:
    pair = (ANNOTATOR, SEGMENTOR)
    rows: dict[str, Row] = {}
    for interval in INTERVALS[preset]:
        columns = (*pair, STUDENT) if interval == 1 else pair
        rows[f"K = {interval}"] = ({"fit.matching.segmentor_interval": interval}, columns)
    for block in BLOCKS[preset]:
        rows[f"block {block}"] = ({"fit.matching.block": block}, pair)
    for block in UNET_BLOCKS[preset]:
        columns = (*pair, STUDENT) if block == "all" else pair
        rows[f"U-Net, {block}"] = (_unet() | {"fit.matching.block": block}, columns)
    for state in STATES[preset]:
        label = f"segmentor {state.replace('_', ' and ')}"
        rows[label] = ({"fit.matching.state": state}, pair)
    for px in SIZES[preset]:
        rows[f"segmentor at {px} px"] = ({"fit.matching.resolution": px}, pair)
    return rows | _rivals(preset)


def _rivals(preset: str) -> dict[str, Row]:
    def of(objective: str, **changes: Any) -> dict[str, Any]:
        return {"fit.matching.objective": objective, **changes}

    pair, apart = (ANNOTATOR, SEGMENTOR), (ANNOTATOR, STUDENT)
    steps = "fit.matching.maml.inner_steps"
    return {
        "MAML, 1 step": (of("maml", **{steps: 1}), pair),
        "MAML, 2 steps": (of("maml", **{steps: 2}), pair),
        "inversion": (of("inversion", trunk=None), apart),
        "pseudo-labels": (of("pseudo_labels"), apart),
        "DatasetGAN": ({"fit.method": "pixel_ensemble", "trunk": None}, apart),
        "labels alone": (of("supervised"), (SEGMENTOR,)),
        "labels alone, U-Net": (_unet() | of("supervised"), (SEGMENTOR,)),
        f"{MANY[preset]} labels alone": (
            of("supervised") | {"data.shots": MANY[preset]},
            (SEGMENTOR,),
        ),
    }


def _unet() -> dict[str, Any]:
    return {"fit.matching.segmentor.network": "unet", "trunk": None}


def _paper_cell(row: str) -> str | None:
    """Name the row of the paper's table whose part a row plays."""
    return {
        "K = 1": "lagm_t2[blocks=Head (default)]",
        "block res5+head": "lagm_t2[blocks=Res5..Head]",
        "block res4..5+head": "lagm_t2[blocks=Res4..Head]",
        "block res3..5+head": "lagm_t2[blocks=Res3..Head]",
        "block res2..5+head": "lagm_t2[blocks=Res2..Head]",
        "block all": "lagm_t2[blocks=All]",
        "MAML, 1 step": "lagm_c7[method=MAML-1]",
        "MAML, 2 steps": "lagm_c7[method=MAML-2]",
        "inversion": "lagm_c5[method=Inversion]",
        "pseudo-labels": "lagm_c6[method=Pseudo-labelling]",
    }.get(row)


def suggest(preset: str, trial: Any) -> dict[str, Any]:
    """Choose interval, block and learning rates of the segmentor that learns with the annotator."""
    block = trial.suggest_categorical("block", ["head", *BLOCKS[preset]])
    return NETWORKS[SEGMENTOR] | {
        "fit.matching.segmentor_interval": trial.suggest_categorical("K", INTERVALS[preset]),
        "fit.matching.block": block,
        "fit.matching.annotator_lr": trial.suggest_float("annotator lr", 2e-4, 1e-2, log=True),
        "fit.matching.segmentor_lr": trial.suggest_float("segmentor lr", 2e-4, 1e-2, log=True),
    }


def place(preset: str, changes: Changes) -> Cell:
    """Return the row of a chosen configuration."""
    matching = {name.removeprefix("fit.matching."): value for name, value in changes.items()}
    row = (
        f"K = {matching['segmentor_interval']}, block {matching['block']}, annotator lr "
        f"{matching['annotator_lr']:.1e}, segmentor lr {matching['segmentor_lr']:.1e}"
    )
    return Cell(row, SEGMENTOR, dict(changes))


def repeat(index: int) -> dict[str, Any]:
    """Return what tells a repeat from another: seeds of the fits and the labelled subset."""
    return {
        "fit.matching.seed": index,
        "fit.pixel.seed": index,
        "student.seed": index,
        "label.seed": index,
        "data.draw": index,
    }
