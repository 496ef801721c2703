"""Can an annotator be learnt from a few labels by matching gradients, and what does it depend on?

LAGM's ablations and rivals, a row each: how often the segmentor is updated (K, figure 4), whose
gradients are matched (tables 2 and C.8), the segmentor's state (C.2) and input size (C.9), how good
the generator is (C.10); MAML (C.7), the inversion method (C.5), pseudo-labels (C.6), DatasetGAN's
ensemble on the same labels, and the segmentor trained on the labels alone (C.11). Columns are the
networks that are scored: the *annotator* on test images found in the generator, the *segmentor*
that learnt with it, and a *student* trained afterwards on images that the annotator labelled
(table 1, lower part).
"""

from __future__ import annotations

from typing import Any

from raysweep import presets
from raysweep.config import to_dict
from raysweep.data.joint import JointConfig
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
    LAGM_TABLE_C10,
    LAGM_TABLE_C11,
)
from raysweep.orchestration.planning.plan import Cell, Changes, Drawing

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
    LAGM_TABLE_C10,
    LAGM_TABLE_C7,
    LAGM_TABLE_C5,
    LAGM_TABLE_C6,
    LAGM_TABLE_C11,
    LAGM_TABLE_1B,
)
ROW_AXIS, COLUMN_AXIS = "training", "scored"
FIGURE: Drawing = "heat map"

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
    "demo": ["scratch", "reinitialised", "pretrained", "fixed"],
    "paper": ["scratch", "reinitialised", "pretrained", "fixed", "pretrained_fixed"],
}
ALONE_STEPS = {"smoke": 6, "demo": 1200, "paper": 150_000}
MANY = {"smoke": 8, "demo": 50, "paper": 1500}
"""Labelled images of the supervised row that shows what more labels would bring."""
SIZES = {"smoke": [8], "demo": [16], "paper": [128, 64]}
"""Sides of the segmentor's images below the generator's."""
GENERATORS = {"smoke": [0.16], "demo": [40.0, 80.0], "paper": [1000.0, 5000.0]}
"""Images shown to worse generators: the training of the base's, ended sooner."""
PAPER_ROWS = {
    "K = 1": (LAGM_TABLE_2, "Head (default)"),
    "block res5+head": (LAGM_TABLE_2, "Res5..Head"),
    "block res4..5+head": (LAGM_TABLE_2, "Res4..Head"),
    "block res3..5+head": (LAGM_TABLE_2, "Res3..Head"),
    "block res2..5+head": (LAGM_TABLE_2, "Res2..Head"),
    "block all": (LAGM_TABLE_2, "All"),
    "MAML, 1 step": (LAGM_TABLE_C7, "MAML-1, StyleGAN2, DeepLabV3"),
    "MAML, 2 steps": (LAGM_TABLE_C7, "MAML-2, StyleGAN2, DeepLabV3"),
    "inversion": (LAGM_TABLE_C5, "Inversion, DeepLabV3"),
    "pseudo-labels": (LAGM_TABLE_C6, "Pseudo-labelling, DeepLabV3"),
}

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
    for kimg in GENERATORS[preset]:
        rows[f"generator of {kimg:g} kimg"] = ({"pretrain.gan.kimg": kimg}, pair)
    return rows | _rivals(preset)


def _rivals(preset: str) -> dict[str, Row]:
    def of(objective: str, **changes: Any) -> dict[str, Any]:
        return {"fit.matching.objective": objective, **changes}

    pair, apart, alone = (ANNOTATOR, SEGMENTOR), (ANNOTATOR, STUDENT), supervised(preset)
    steps = "fit.matching.maml.inner_steps"
    return {
        "MAML, 1 step": (of("maml", **{steps: 1}), pair),
        "MAML, 2 steps": (of("maml", **{steps: 2}), pair),
        "inversion": (of("inversion", trunk=None), apart),
        "pseudo-labels": (of("pseudo_labels"), apart),
        "DatasetGAN": ({"fit.method": "pixel_ensemble", "trunk": None}, apart),
        "labels alone": (alone, (SEGMENTOR,)),
        "labels alone, U-Net": (_unet() | alone, (SEGMENTOR,)),
        f"{MANY[preset]} labels alone, U-Net": (
            _unet() | alone | {"data.shots": MANY[preset]},
            (SEGMENTOR,),
        ),
    }


def supervised(preset: str) -> dict[str, Any]:
    """Return the settings of a segmentor trained on the labels alone, augmented and for longer."""
    return {
        "fit.matching.objective": "supervised",
        "fit.matching.augment": to_dict(JointConfig()),
        "fit.matching.segmentor_lr": 2e-3,
        "fit.matching.steps": ALONE_STEPS[preset],
    }


def _unet() -> dict[str, Any]:
    return {"fit.matching.segmentor.network": "unet", "trunk": None}


def _paper_cell(row: str) -> str | None:
    """Name the cell of a paper's table whose part a row plays."""
    if row not in PAPER_ROWS:
        return None
    table, line = PAPER_ROWS[row]
    column = "mIoU" if "mIoU" in table.columns else "Face-34"
    return f"{table.id}[{table.row_axis}={line}, {table.column_axis}={column}]"


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
