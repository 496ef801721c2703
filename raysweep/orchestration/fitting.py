"""The fit stage: a projector, or an ensemble of pixel classifiers, on a frozen representation."""

from __future__ import annotations

import json
from typing import Any

import safetensors.torch
import torch

from raysweep.config import to_dict
from raysweep.data.records import Split
from raysweep.features.representation import Representation
from raysweep.fewshot.ensemble import Majority
from raysweep.fewshot.pixel_classifier import PixelBatches, PixelEnsembleFit
from raysweep.fewshot.projector import (
    ProjectorFit,
    candidate_steps,
    clean_masks,
    fit_batch,
    prepared,
    resized_masks,
)
from raysweep.orchestration.chain import Chain
from raysweep.orchestration.models import read_codes, representation_of
from raysweep.orchestration.stages import Workspace
from raysweep.orchestration.storage import write_atomically
from raysweep.orchestration.worker import Curve, Progress, Run, run
from raysweep.presets import Experiment

LOG_EVERY = 100
"""Steps of the pixel ensemble, which are short, per window of its curve."""


def fit(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``candidate-<step>.safetensors``, ``curve.json`` and ``dataset.json``."""
    data, dataset = experiment.data, run_with.dataset
    names = dataset.shots(data.shots, data.draw)
    inputs = inputs_of("train", experiment, chain, run_with)
    masks = dataset.masks("train", px=data.px, names=names)
    representation = representation_of(
        run_with.store, chain.pretrain.key, run_with.device, layers=experiment.fit.layers
    )
    method = _fit_projector if experiment.fit.method == "projector" else _fit_ensemble
    curve = method(experiment, representation, inputs, masks, workspace, run_with)
    write_atomically(workspace.path / "curve.json", json.dumps(curve, indent=1).encode())
    info = json.dumps(to_dict(dataset.info), indent=1)
    write_atomically(workspace.path / "dataset.json", info.encode())
    return {**curve[-1], "labelled": list(names)}


def _fit_projector(
    experiment: Experiment,
    representation: Representation,
    inputs: torch.Tensor,
    masks: torch.Tensor,
    workspace: Workspace,
    run_with: Run,
) -> Curve:
    config, info = experiment.fit, run_with.dataset.info
    learner = ProjectorFit(
        config,
        representation=representation,
        num_classes=len(info.classes),
        flip_pairs=info.flip_pairs,
        device=run_with.device,
    )
    candidates = set(candidate_steps(config))

    def keep_candidate(step: int) -> None:
        if step in candidates:
            tensors = safetensors.torch.save(learner.projector_state())
            write_atomically(workspace.path / f"candidate-{step}.safetensors", tensors)

    return run(
        learner,
        lambda step: fit_batch(inputs, masks, step=step, config=config),
        name="fit",
        steps=config.steps,
        checkpoints=workspace,
        report=run_with.report,
        after_step=keep_candidate,
    )


def _fit_ensemble(
    experiment: Experiment,
    representation: Representation,
    inputs: torch.Tensor,
    masks: torch.Tensor,
    workspace: Workspace,
    run_with: Run,
) -> Curve:
    """Fit until no member improves; it takes seconds, so a kill starts it again."""
    config, px = experiment.fit, experiment.fit.resolution
    device, num_classes = run_with.device, len(run_with.dataset.info.classes)
    levels = representation(prepared(representation, inputs.to(device), px))
    masks = resized_masks(clean_masks(masks, config.clean_pixels), px).byte()
    batches = PixelBatches(levels, masks, config=config.pixel)
    learner = PixelEnsembleFit(
        config.pixel,
        channels=representation.channels,
        num_classes=num_classes,
        pixels=batches.pixels,
        device=device,
    )
    curve: Curve = []
    most = config.pixel.epochs * batches.pixels // config.pixel.batch
    while not learner.done:
        metrics = learner.step(batches.batch(learner.steps_taken))
        if learner.steps_taken % LOG_EVERY == 0 or learner.done:
            row = {key: float(value) for key, value in metrics.items()}
            curve.append({"step": learner.steps_taken, **row})
            run_with.report(Progress("fit", learner.steps_taken, most, row))
    found = Majority(learner.ensemble()).state_dict()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in found.items()}
    write_atomically(workspace.path / "candidate-0.safetensors", safetensors.torch.save(tensors))
    return curve


def inputs_of(split: Split, experiment: Experiment, chain: Chain, run_with: Run) -> torch.Tensor:
    """Return what the representation takes for a split: images, or their codes in a generator.

    Of the training split only the labelled images of this experiment.
    """
    if split in chain.projections:
        return read_codes(run_with.store, chain.projections[split])
    data, dataset = experiment.data, run_with.dataset
    names = dataset.shots(data.shots, data.draw) if split == "train" else None
    return dataset.images(split, px=data.px, names=names)
