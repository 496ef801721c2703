"""Which resolution pays: in pretraining, in the segmentor, or in both?

The grid of GanOrCon's appendix E: three pretraining by three segmentor resolutions under the MLP
projector, with raw colour and random weights as further rows. Every cell is repeated over projector
seeds and draws of the labelled subset; the three pretrainings are shared by all of them, so the
error bars do not cover the pretraining seed (``--set pretrain.seed=1`` trains another three).

Cost of the demo preset: see the README. Expected: the segmentor's resolution matters most, and
pretrained features beat random weights where the segmentor sees 64 px.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from raysweep import presets

BASE = presets.PRESETS

ROWS, COLUMNS = "pretrain.resolution", "fit.resolution"

SPACE: dict[str, dict[str, Any]] = {
    "smoke": {ROWS: tune.grid_search([16, 24, 32]), COLUMNS: tune.grid_search([8, 16, 32])},
    "demo": {ROWS: tune.grid_search([16, 24, 32]), COLUMNS: tune.grid_search([16, 32, 64])},
    "paper": {ROWS: tune.grid_search([96, 256, 512]), COLUMNS: tune.grid_search([96, 256, 512])},
}

METRIC = ("miou", "max")

# rows to which no pretraining resolution applies, crossed with the columns only
BASELINES: dict[str, dict[str, Any]] = {
    "raw colour": {"pretrain.method": "rgb"},
    "random weights": {"pretrain.method": "random"},
}

REPEATS = {"smoke": 2, "demo": 3, "paper": 3}

PAPER_TABLE = "ganorcon_appE"
PAPER_AXES = {"moco": ROWS, "segmentor": COLUMNS}


def repeat(index: int) -> dict[str, Any]:
    """Return what tells a repeat from another: the projector's seed and the labelled subset."""
    return {"fit.seed": index, "data.draw": index}
