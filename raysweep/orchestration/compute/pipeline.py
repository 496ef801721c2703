"""The chain of stages behind one number: pretrain, fit, perhaps label and distill, evaluate.

Each stage reads its inputs from the store and leaves files in its workspace; the docstring of its
function lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from PIL import Image

from raysweep.data.dataset import Dataset
from raysweep.data.records import Split
from raysweep.evaluate.images import grid
from raysweep.evaluate.metrics import Absent, confusion, scores
from raysweep.evaluate.protocols import five_folds, held_out
from raysweep.experiment import EvaluateConfig, Experiment
from raysweep.orchestration.compute.chain import Chain, chain_of
from raysweep.orchestration.compute.distilling import distill
from raysweep.orchestration.compute.fitting import fit, inputs_of
from raysweep.orchestration.compute.labelling import label
from raysweep.orchestration.compute.learning import pretrain
from raysweep.orchestration.compute.memory import sparing
from raysweep.orchestration.compute.models import Model, candidates_of, load_fit, load_model
from raysweep.orchestration.compute.projecting import project
from raysweep.orchestration.compute.worker import Progress, Run
from raysweep.orchestration.store.stages import Workspace
from raysweep.orchestration.store.storage import write_atomically

CANDIDATES = "candidates.json"


def compute(experiment: Experiment, run_with: Run) -> dict[str, Any]:
    """Compute what is missing of an experiment's chain; return the record of its evaluation."""
    chain = chain_of(experiment, run_with.dataset.info.fingerprint)
    store = run_with.store
    if store.done(chain.evaluate):
        return store.record(chain.evaluate)
    for stage in chain:
        waiting = partial(run_with.report, Progress(f"waiting for {stage}", 0, 1, {}))
        with store.claim(stage, waiting=waiting) as workspace:
            if workspace is not None:
                of = _for_trunk(experiment) if stage == chain.trunk else experiment
                work = partial(COMPUTE[stage.name], of, chain, workspace, run_with)
                workspace.commit(sparing(stage, store.storage, work))
    return store.record(chain.evaluate)


def _for_trunk(experiment: Experiment) -> Experiment:
    """Return the experiment with the trunk in place of the representation."""
    return experiment.model_copy(update={"pretrain": experiment.trunk})


def evaluate(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave what :func:`score` leaves: ``grid.png`` shows the first test images, truth beside."""
    stage, store, device = chain.model, run_with.store, run_with.device
    model: Model
    if stage == chain.fit and experiment.evaluate.annotator:
        model = load_fit(store, stage.key, device)
    else:
        model = load_model(store, stage.key, device, stage=stage.name)
    inputs = partial(inputs_of, experiment=experiment, chain=chain, run_with=run_with)
    return score(experiment.evaluate, model, inputs, workspace, run_with)


def score(
    config: EvaluateConfig,
    model: Model,
    inputs_of_split: Callable[[Split], torch.Tensor],
    workspace: Workspace,
    run_with: Run,
) -> dict[str, Any]:
    """Score a model by the protocol; leave ``grid.png`` and, of ``held_out``, ``candidates.json``.

    The latter holds the validation mIoU of all candidates: ``[{"step": 100, "val_miou": 0.3}]``.

    Args:
        config: the protocol.
        model: what labels.
        inputs_of_split: what it takes for the images of a split.
        workspace: where the picture goes.
        run_with: dataset, device and report.

    Returns:
        The scores and the step of the chosen candidate.
    """
    dataset, steps = run_with.dataset, candidates_of(model)

    def confusions(split: Split, index: int) -> torch.Tensor:
        truth = dataset.masks(split, px=config.px)
        labels = model.predict(inputs_of_split(split), candidate=steps[index], out_px=config.px)
        run_with.report(Progress("evaluate", index + 1, len(steps), {}))
        return confusion(labels, truth, len(dataset.info.classes))

    if config.protocol == "five_folds":
        every = torch.stack([confusions("test", at) for at in range(len(steps))])
        result = five_folds(every, dataset.names("test"), absent=config.absent)
    else:
        val = torch.stack([confusions("val", at).sum(0) for at in range(len(steps))])
        result = held_out(val, lambda at: confusions("test", at).sum(0), absent=config.absent)
        _keep_candidates(workspace, steps, val, absent=config.absent)
    candidate = steps[result.selected[0]]
    names = dataset.names("test")[: config.images]
    inputs = inputs_of_split("test")[: config.images]
    labels = model.predict(inputs, candidate=candidate, out_px=config.px)
    _picture(labels, names, dataset, px=config.px).save(workspace.path / "grid.png")
    spread = {} if result.spread is None else {"fold_spread": result.spread}
    found = {"val_miou": result.val_miou, "candidate": candidate}
    return {**asdict(result.scores), **spread, **found}


def _keep_candidates(
    workspace: Workspace, steps: Sequence[int], val: torch.Tensor, *, absent: Absent
) -> None:
    rows = [
        {"step": step, "val_miou": scores(counts, absent=absent).miou}
        for step, counts in zip(steps, val, strict=True)
    ]
    write_atomically(workspace.path / CANDIDATES, json.dumps(rows, indent=1).encode())


def _picture(
    labels: torch.Tensor, names: Sequence[str], dataset: Dataset, *, px: int
) -> Image.Image:
    """Draw test images, truths and labels ``(count, px, px)``."""
    return grid(
        dataset.images("test", px=px, names=names).permute(0, 2, 3, 1).numpy(),
        dataset.masks("test", px=px, names=names).numpy(),
        labels.numpy(),
        dataset.info.palette,
        dataset.info.classes,
    )


COMPUTE = {
    "pretrain": pretrain,
    "project": project,
    "fit": fit,
    "label": label,
    "distill": distill,
    "evaluate": evaluate,
}
