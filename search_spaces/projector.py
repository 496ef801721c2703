"""Contrastive or generative features, and which projector on them?

GanOrCon's table 2 in shape: representation and projector run down, direct and distilled evaluation
across. *Direct* scores the projector itself; for a generator every test image is first looked for
in it (latent optimisation). *Distilled* trains a network on the projector's labels of unlabelled or
generated images and scores that. Random weights and raw colour stand beside them.

``--search optuna`` looks for a projector architecture on MoCo v2 instead: kind, depth, widths,
kernel, dilation, normalisation, learning rate and weight decay, unpromising ones stopped early.
"""

from __future__ import annotations

from typing import Any

from raysweep import presets
from raysweep.evaluate.paper_tables import GANORCON_TABLE_2
from raysweep.orchestration.planning.plan import Cell, Changes, Drawing
from raysweep.paper_presets.datasetgan import CLEAN_PIXELS, PSI
from raysweep.paper_presets.ganorcon import ganorcon
from raysweep.paper_presets.regan import sweep_changes

BASE = presets.PRESETS

METRIC = ("val_miou", "max")
REPEATS = {"smoke": 1, "demo": 3, "paper": 3}
PAPER = GANORCON_TABLE_2
PAPERS = (PAPER,)
ROW_AXIS, COLUMN_AXIS = "representation + projector", "evaluated"
FIGURE: Drawing = "heat map"
CURVES: tuple[str, ...] = ()
DIRECT, DISTILLED = "direct", "distilled"

RANDOM_GENERATOR = "random StyleGAN2 + MLP ensemble"
BASELINES = {
    "raw colour + MLP": "rgb",
    "random weights + MLP": "random",
    "random weights + CONV": "random",
    RANDOM_GENERATOR: "stylegan2",
}

# side at which a generator's features are read: its own resolution
GENERATED_PX = {"smoke": 16, "demo": 32, "paper": 512}

# Model-B of GanOrCon with the widths that a budget allows; the paper's Model-A is for 512 px
CONV: dict[str, dict[str, Any]] = {
    "smoke": {"kind": "conv_b", "widths": [8] * 9},
    "demo": {"kind": "conv_b", "widths": [64, 32, 32, 32, 64, 32, 32, 32, 32]},
    "paper": {"kind": "conv_a", "widths": None},
}
_PAPER = ganorcon()
_CONV = ganorcon(projector="conv").fit
CONV_FIT: dict[str, dict[str, Any]] = {
    "smoke": {},
    "demo": {},
    "paper": {
        "fit.steps": _CONV.steps,
        "fit.lr": _CONV.lr,
        "fit.checkpoints": _CONV.checkpoints,
    },
}
SIMSIAM: dict[str, dict[str, Any]] = {
    "smoke": {"pretrain.simsiam.dim": 16, "pretrain.simsiam.predictor_hidden": 8},
    "demo": {
        "pretrain.simsiam.dim": 256,
        "pretrain.simsiam.predictor_hidden": 64,
        "pretrain.lr": 0.05,
    },
    "paper": {
        "pretrain.lr": 0.05,
        "pretrain.steps": ganorcon(method="simsiam").pretrain.steps,
    },
}
# what DatasetGAN's ensemble and its student have of their own
ENSEMBLE_FIT: dict[str, dict[str, Any]] = {
    "smoke": {},
    "demo": {},
    "paper": {"fit.clean_pixels": CLEAN_PIXELS},
}
ENSEMBLE_STUDENT: dict[str, dict[str, Any]] = {
    "smoke": {},
    "demo": {},
    "paper": {"label.psi": PSI, "student.epochs": 20, "student.checkpoints": 20},
}
REGAN_FIT: dict[str, dict[str, Any]] = {
    "smoke": {},
    "demo": {},
    "paper": sweep_changes(_PAPER.pretrain.gan.network, shots=_PAPER.data.shots),
}
REGAN = ("regan_s", "regan_m", "regan_l")


def cells(preset: str) -> list[Cell]:
    """Return the rows of the table, baselines first, each direct and, if it is worth it, distilled.

    ReGAN's convolutions are tried on the generator, as in its paper; the four rows that GanOrCon
    distils are distilled here.
    """
    found = []
    for row, (changes, distil, paper) in _rows(preset).items():
        cell = None if paper is None else f"{PAPER.id}[{PAPER.row_axis}={paper}, evaluated="
        direct = {"distilled": False, **changes}
        found.append(Cell(row, DIRECT, direct, cell and f"{cell}direct]"))
        if distil:
            found.append(
                Cell(row, DISTILLED, direct | {"distilled": True}, cell and f"{cell}distilled]")
            )
    return found


Row = tuple[dict[str, Any], bool, str | None]
"""Settings, whether to distil, row of the paper's table."""


def _rows(preset: str) -> dict[str, Row]:
    conv = conv_changes(preset)
    methods: dict[str, dict[str, Any]] = {"MoCo v2": {"pretrain.method": "moco"}}
    methods["SimSiam"] = {"pretrain.method": "simsiam", **SIMSIAM[preset]}
    generator = {"pretrain.method": "stylegan2", "fit.resolution": GENERATED_PX[preset]}
    generator["label.source"] = "generated"
    ensemble = generator | {"fit.method": "pixel_ensemble", **ENSEMBLE_FIT[preset]}
    rows: dict[str, Row] = {
        "raw colour + MLP": ({"pretrain.method": "rgb"}, False, None),
        "random weights + MLP": ({"pretrain.method": "random"}, False, None),
        "random weights + CONV": ({"pretrain.method": "random", **conv}, False, None),
        RANDOM_GENERATOR: (ensemble | {"pretrain.gan.kimg": 0.0}, False, None),
    }
    for name, changes in methods.items():
        is_moco = name == "MoCo v2"
        rows[f"{name} + MLP"] = (changes, True, "MoCo + MLP" if is_moco else None)
        rows[f"{name} + CONV"] = (changes | conv, is_moco, "MoCo + CONV" if is_moco else None)
    taught = ensemble | ENSEMBLE_STUDENT[preset]
    rows["StyleGAN2 + MLP ensemble"] = (taught, True, "StyleGAN + MLP ensemble")
    rows["StyleGAN2 + CONV"] = (generator | conv, False, None)
    for kind in REGAN:
        name = f"StyleGAN2 + ReGAN CNN-{kind[-1].upper()}"
        own = REGAN_FIT[preset] | {"fit.projector.kind": kind, "fit.projector.widths": None}
        rows[name] = (generator | own, False, None)
    return rows


def conv_changes(preset: str) -> dict[str, Any]:
    """Return the settings of the CONV projector."""
    projector = {f"fit.projector.{key}": value for key, value in CONV[preset].items()}
    return projector | CONV_FIT[preset]


def suggest(preset: str, trial: Any) -> dict[str, Any]:
    """Choose a projector on MoCo v2; what is chosen next depends on the kind."""
    kind = trial.suggest_categorical("kind", ["mlp", "cnn", "conv_b"])
    widths: list[int] | None = None
    chosen: dict[str, Any] = {"pretrain.method": "moco", "fit.projector.kind": kind}
    if kind == "mlp":
        widths = [_width(trial, f"mlp width {layer}") for layer in range(2)]
    elif kind == "conv_b":
        widths = [_width(trial, "conv width")] * 9
    else:
        depth = trial.suggest_int("depth", 1, 4)
        widths = [_width(trial, f"cnn width {layer}") for layer in range(depth)]
        growth = trial.suggest_categorical("dilation growth", [1, 2])
        chosen["fit.projector.kernel"] = trial.suggest_categorical("kernel", [1, 3])
        chosen["fit.projector.dilations"] = [growth**layer for layer in range(depth)]
        chosen["fit.projector.norm"] = trial.suggest_categorical("norm", ["batch", "none"])
    chosen["fit.projector.widths"] = widths
    chosen["fit.lr"] = trial.suggest_float("lr", 3e-4, 1e-2, log=True)
    chosen["fit.weight_decay"] = trial.suggest_float("weight decay", 1e-6, 1e-2, log=True)
    return chosen


def _width(trial: Any, name: str) -> int:
    return int(trial.suggest_categorical(name, [16, 32, 64, 128]))


def place(preset: str, changes: Changes) -> Cell:
    """Return the row of a chosen projector: its architecture and its learning rate."""
    parts = [str(changes["fit.projector.kind"])]
    parts.append("-".join(map(str, changes["fit.projector.widths"])))
    if changes["fit.projector.kind"] == "cnn":
        parts.append(f"k{changes['fit.projector.kernel']}")
        parts.append("d" + "".join(map(str, changes["fit.projector.dilations"])))
        parts.append(f"norm {changes['fit.projector.norm']}")
    parts.append(f"lr {changes['fit.lr']:.1e} wd {changes['fit.weight_decay']:.1e}")
    return Cell(" ".join(parts), DIRECT, {"distilled": False, **changes})


def repeat(index: int) -> dict[str, Any]:
    """Return what tells a repeat from another: seeds of the fits and the labelled subset."""
    return {
        "fit.seed": index,
        "fit.pixel.seed": index,
        "student.seed": index,
        "label.seed": index,
        "data.draw": index,
    }
