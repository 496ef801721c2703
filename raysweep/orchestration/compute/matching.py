"""The fit stage by gradient matching or one of its rivals."""

from __future__ import annotations

import safetensors.torch
import torch
from torch import nn

from raysweep.distill.student import label_images
from raysweep.evaluate.metrics import mean_iou
from raysweep.experiment import Experiment
from raysweep.features.generator import unpack
from raysweep.fewshot.gradient_matching import GradientMatching
from raysweep.fewshot.matching_config import Labelled, MatchingConfig, candidate_steps
from raysweep.fewshot.matching_inputs import matching_batch
from raysweep.nets.gans import Generator
from raysweep.orchestration.compute.chain import Chain
from raysweep.orchestration.compute.models import GENERATOR, TRUNK
from raysweep.orchestration.compute.worker import Curve, Run, run
from raysweep.orchestration.store.stages import Workspace
from raysweep.orchestration.store.storage import write_atomically
from raysweep.represent.generators import read_generator, to_uint8
from raysweep.represent.weights import read_trunk


def fit_by_matching(
    experiment: Experiment,
    chain: Chain,
    workspace: Workspace,
    run_with: Run,
    inputs: torch.Tensor,
    masks: torch.Tensor,
) -> Curve:
    """Leave ``candidate-<step>.safetensors`` with annotator and segmentor; return the curve.

    Args:
        experiment: settings.
        chain: where generator and trunk are.
        workspace: where files go.
        run_with: dataset, device and report.
        inputs: labelled images ``(shots, 3, px, px)`` uint8, or codes ``(shots, length)``.
        masks: ``(shots, px, px)`` uint8.
    """
    config = experiment.fit.matching
    generator = read_generator(run_with.store.directory(chain.pretrain) / GENERATOR)
    if inputs.ndim == 2 and config.objective != "inversion":  # samples that a person labelled
        inputs = images_of(generator, inputs)
    labelled = Labelled(inputs, masks)
    learner = _learner(config, chain, run_with, generator=generator, labelled=labelled)
    candidates = set(candidate_steps(config))

    def keep_candidate(step: int) -> None:
        if step not in candidates:
            return
        tensors = safetensors.torch.save(learner.results())
        write_atomically(workspace.path / f"candidate-{step}.safetensors", tensors)
        if run_with.judge is not None and config.segments:
            run_with.judge(step, _val_miou(learner.segmentor, experiment, learner.px, run_with))

    return run(
        learner,
        lambda step: matching_batch(labelled, step=step, config=config),
        name="fit",
        steps=config.total_steps,
        checkpoints=workspace,
        report=run_with.report,
        after_step=keep_candidate,
    )


def _learner(
    config: MatchingConfig,
    chain: Chain,
    run_with: Run,
    *,
    generator: Generator,
    labelled: Labelled,
) -> GradientMatching:
    info, trunk = run_with.dataset.info, None
    if chain.trunk is not None:
        trunk = read_trunk(run_with.store.directory(chain.trunk) / TRUNK).state_dict()
    return GradientMatching(
        config,
        generator=generator,
        labelled=labelled,
        num_classes=len(info.classes),
        trunk=trunk,
        flip_pairs=info.flip_pairs,
        device=run_with.device,
    )


@torch.no_grad()
def images_of(generator: Generator, codes: torch.Tensor) -> torch.Tensor:
    """Return what a generator makes of codes: ``(count, 3, resolution, resolution)`` uint8."""
    return torch.cat(
        [to_uint8(generator.synthesis(*unpack(code, generator))) for code in codes.split(16)]
    ).cpu()


@torch.no_grad()
def _val_miou(network: nn.Module, experiment: Experiment, px: int, run_with: Run) -> float:
    evaluation, dataset = experiment.evaluate, run_with.dataset
    images = dataset.images("val", px=experiment.data.px)
    labels = label_images(network.eval(), images, px=px, out_px=evaluation.px)
    truth = dataset.masks("val", px=evaluation.px)
    classes = len(dataset.info.classes)
    return mean_iou(labels, truth, classes, absent=evaluation.absent)
