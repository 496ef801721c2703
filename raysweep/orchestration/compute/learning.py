"""The pretrain stage: a representation is learnt, imported, or left random."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysweep import collective
from raysweep.data.sampling import batch_indices
from raysweep.experiment import Experiment
from raysweep.learner import identity
from raysweep.nets.resnet import build_trunk
from raysweep.orchestration.compute.chain import Chain
from raysweep.orchestration.compute.generative import learn_generator
from raysweep.orchestration.compute.models import GENERATOR, TRUNK
from raysweep.orchestration.compute.worker import Checkpoints, Curve, Run, run
from raysweep.orchestration.store.stages import Workspace
from raysweep.orchestration.store.storage import write_atomically
from raysweep.represent.gan_weights import read_imported
from raysweep.represent.generators import save_generator
from raysweep.represent.moco import Moco
from raysweep.represent.simsiam import Simsiam
from raysweep.represent.untrained import untrained_trunk
from raysweep.represent.weights import load_trunk, save_trunk

LEARNERS: dict[str, type[Moco] | type[Simsiam]] = {"moco": Moco, "simsiam": Simsiam}


def pretrain(
    experiment: Experiment, _chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave a trunk or a generator, and ``curve.json`` of its training; nothing for raw colour."""
    config = experiment.pretrain
    if config.method == "rgb":
        return {}
    if config.learnt:
        return learn_representation(experiment, workspace, run_with, checkpoints=workspace)
    if config.method == "generator":
        generator = read_imported(str(config.weights)).build_generator()
        save_generator(generator, workspace.path / GENERATOR)
        return {}
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
    """Train as one of ``collective.size()`` workers; rank 0 leaves the files.

    Args:
        experiment: what to train.
        workspace: where files go.
        run_with: dataset, device and report.
        checkpoints: where state is kept.
        wrap: makes a contrastive learner data-parallel; generators average their gradients.
    """
    config = experiment.pretrain
    if config.contrastive:
        images = run_with.dataset.pretraining_images(px=experiment.data.px)
        curve = _learn_trunk(experiment, images, workspace, run_with, checkpoints, wrap)
    else:
        images = run_with.dataset.pretraining_images(px=config.network.resolution)
        curve = learn_generator(
            config,
            images,
            workspace,
            device=run_with.device,
            report=run_with.report,
            checkpoints=checkpoints,
        )
    if collective.rank() == 0:
        write_atomically(workspace.path / "curve.json", json.dumps(curve, indent=1).encode())
    last = curve[-1] if curve else {}
    return {**last, "samples": config.steps_in_all * config.images_per_step}


def _learn_trunk(
    experiment: Experiment,
    images: torch.Tensor,
    workspace: Workspace,
    run_with: Run,
    checkpoints: Checkpoints,
    wrap: Callable[[nn.Module], nn.Module],
) -> Curve:
    config = experiment.pretrain
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
    return curve
