"""The chain of stages behind one number: pretrain, fit, evaluate.

Each stage reads its inputs from the store and leaves files in its workspace; the docstring of its
function lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from torch import nn

from raysweep import collective
from raysweep.config import to_dict
from raysweep.data.dataset import Dataset
from raysweep.data.records import Split
from raysweep.data.sampling import batch_indices
from raysweep.evaluate.images import grid
from raysweep.evaluate.metrics import confusion
from raysweep.evaluate.protocols import five_folds, held_out
from raysweep.fewshot.projector import ProjectorFit, candidate_steps, fit_batch
from raysweep.learner import identity
from raysweep.nets.resnet import build_trunk
from raysweep.orchestration.chain import Chain, chain_of
from raysweep.orchestration.models import TRUNK, Model, load_model, representation_of
from raysweep.orchestration.stages import StageStore, Workspace
from raysweep.orchestration.storage import write_atomically
from raysweep.orchestration.worker import Checkpoints, Curve, Progress, Report, run
from raysweep.presets import Experiment
from raysweep.represent.moco import Moco
from raysweep.represent.simsiam import Simsiam
from raysweep.represent.untrained import untrained_trunk
from raysweep.represent.weights import load_trunk, save_trunk

LEARNERS: dict[str, type[Moco] | type[Simsiam]] = {"moco": Moco, "simsiam": Simsiam}


@dataclass(frozen=True)
class Run:
    """What a stage needs to run, and nothing that changes its result."""

    store: StageStore
    dataset: Dataset
    device: torch.device
    report: Report


def compute(experiment: Experiment, run_with: Run) -> dict[str, Any]:
    """Compute what is missing of an experiment's chain; return the record of its evaluation."""
    chain = chain_of(experiment, run_with.dataset.info.fingerprint)
    store = run_with.store
    if store.done(chain.evaluate):
        return store.record(chain.evaluate)
    for stage, function in zip(chain, (pretrain, fit, evaluate), strict=True):
        waiting = partial(run_with.report, Progress(f"waiting for {stage}", 0, 1, {}))
        with store.claim(stage, waiting=waiting) as workspace:
            if workspace is not None:
                workspace.commit(function(experiment, chain, workspace, run_with))
    return store.record(chain.evaluate)


def pretrain(
    experiment: Experiment, _chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``trunk.safetensors`` and ``curve.json``; nothing for raw colour."""
    config = experiment.pretrain
    if config.method == "rgb":
        return {}
    if config.learnt:
        return learn_representation(experiment, workspace, run_with, checkpoints=workspace)
    if config.method == "weights":
        assert config.weights is not None
        trunk = load_trunk(Path(config.weights), config.trunk)
    else:
        images = run_with.dataset.pretraining_images(px=experiment.data.px)
        trunk = untrained_trunk(config.trunk, images, seed=config.seed)
    save_trunk(trunk, workspace.path / TRUNK)
    return {}


def learn_representation(
    experiment: Experiment,
    workspace: Workspace,
    run_with: Run,
    *,
    checkpoints: Checkpoints,
    wrap: Callable[[nn.Module], nn.Module] = identity,
) -> dict[str, Any]:
    """Train MoCo or SimSiam as one of ``collective.size()`` workers; rank 0 leaves the files."""
    config = experiment.pretrain
    images = run_with.dataset.pretraining_images(px=experiment.data.px)
    learner = LEARNERS[config.method](config, device=run_with.device, wrap=wrap)

    def batch_at(step: int) -> dict[str, torch.Tensor]:
        share = batch_indices(
            step,
            count=len(images),
            batch=config.batch,
            seed=config.seed,
            rank=collective.rank(),
            workers=collective.size(),
        )
        return {"image": images[share].to(run_with.device, non_blocking=True)}

    curve = run(
        learner,
        batch_at,
        name="pretrain",
        steps=config.steps,
        checkpoints=checkpoints,
        report=run_with.report,
    )
    if collective.rank() == 0:
        trunk = build_trunk(config.trunk)
        trunk.load_state_dict(learner.trunk_state())
        save_trunk(trunk, workspace.path / TRUNK)
        _save_curve(curve, workspace)
    return {**curve[-1], "samples": config.steps * config.batch}


def fit(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``candidate-<step>.safetensors``, ``curve.json`` and ``dataset.json``."""
    config, data, dataset = experiment.fit, experiment.data, run_with.dataset
    names = dataset.shots(data.shots, data.draw)
    images = dataset.images("train", px=data.px, names=names)
    masks = dataset.masks("train", px=data.px, names=names)
    learner = ProjectorFit(
        config,
        representation=representation_of(run_with.store, chain.pretrain.key, run_with.device),
        num_classes=len(dataset.info.classes),
        flip_pairs=dataset.info.flip_pairs,
        device=run_with.device,
    )
    candidates = set(candidate_steps(config))

    def keep_candidate(step: int) -> None:
        if step in candidates:
            tensors = safetensors.torch.save(learner.projector_state())
            write_atomically(workspace.path / f"candidate-{step}.safetensors", tensors)

    curve = run(
        learner,
        lambda step: fit_batch(images, masks, step=step, config=config),
        name="fit",
        steps=config.steps,
        checkpoints=workspace,
        report=run_with.report,
        after_step=keep_candidate,
    )
    _save_curve(curve, workspace)
    write_atomically(workspace.path / "dataset.json", _json(to_dict(dataset.info)))
    return {**curve[-1], "labelled": list(names)}


def evaluate(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``grid.png``: the first test images, their truth and what was predicted."""
    config, dataset = experiment.evaluate, run_with.dataset
    model = load_model(run_with.store, chain.fit.key, run_with.device)
    steps = candidate_steps(experiment.fit)

    def confusions(split: Split, index: int) -> torch.Tensor:
        images = dataset.images(split, px=experiment.data.px)
        truth = dataset.masks(split, px=config.px)
        labels = model.predict(images, candidate=steps[index], out_px=config.px)
        run_with.report(Progress("evaluate", index + 1, len(steps), {}))
        return confusion(labels, truth, len(dataset.info.classes))

    if config.protocol == "five_folds":
        every = torch.stack([confusions("test", at) for at in range(len(steps))])
        result = five_folds(every, dataset.names("test"), absent=config.absent)
    else:
        val = torch.stack([confusions("val", at).sum(0) for at in range(len(steps))])
        result = held_out(val, lambda at: confusions("test", at).sum(0), absent=config.absent)
    candidate = steps[result.selected[0]]
    _picture(model, candidate, experiment, dataset).save(workspace.path / "grid.png")
    spread = {} if result.spread is None else {"fold_spread": result.spread}
    return {**asdict(result.scores), **spread, "candidate": candidate}


def _picture(model: Model, candidate: int, experiment: Experiment, dataset: Dataset) -> Image.Image:
    px = experiment.evaluate.px
    names = dataset.names("test")[: experiment.evaluate.images]
    shown = dataset.images("test", px=px, names=names)
    images = dataset.images("test", px=experiment.data.px, names=names)
    return grid(
        shown.permute(0, 2, 3, 1).numpy(),
        dataset.masks("test", px=px, names=names).numpy(),
        model.predict(images, candidate=candidate, out_px=px).numpy(),
        dataset.info.palette,
        dataset.info.classes,
    )


def _save_curve(curve: Curve, workspace: Workspace) -> None:
    write_atomically(workspace.path / "curve.json", _json(curve))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
