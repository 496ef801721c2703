"""The fit stage: a projector, or an ensemble of pixel classifiers, on a frozen representation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from raysweep.config import to_dict
from raysweep.data.records import Split
from raysweep.evaluate.metrics import mean_iou
from raysweep.experiment import Experiment
from raysweep.features.representation import Representation
from raysweep.fewshot.ensemble import Majority
from raysweep.fewshot.inputs import clean_masks, prepared, resized_masks
from raysweep.fewshot.pixel_classifier import PixelBatches, PixelEnsembleFit
from raysweep.fewshot.projector import ProjectorFit, candidate_steps, fit_batch, predict
from raysweep.orchestration.compute.annotated import annotations_of, read_lineage
from raysweep.orchestration.compute.chain import Chain
from raysweep.orchestration.compute.matching import fit_by_matching
from raysweep.orchestration.compute.models import read_codes, representation_of
from raysweep.orchestration.compute.worker import Curve, Progress, Run, run
from raysweep.orchestration.store.stages import Workspace
from raysweep.orchestration.store.storage import write_atomically

LOG_EVERY = 100
"""Steps of the pixel ensemble, which are short, per window of its curve."""


def fit(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``candidate-<step>.safetensors``, ``curve.json`` and ``dataset.json``."""
    dataset = run_with.dataset
    names, masks = _labelled(experiment, chain, run_with)
    inputs = inputs_of("train", experiment, chain, run_with)
    if experiment.fit.method == "matching":
        curve = fit_by_matching(experiment, chain, workspace, run_with, inputs, masks)
    else:
        curve = _fit_on_features(experiment, chain, workspace, run_with, inputs, masks)
    write_atomically(workspace.path / "curve.json", json.dumps(curve, indent=1).encode())
    info = json.dumps(to_dict(dataset.info), indent=1)
    write_atomically(workspace.path / "dataset.json", info.encode())
    labelled_by = "dataset"
    if experiment.annotated is not None:
        labelled_by = read_lineage(Path(experiment.annotated)).labelled_by
    return {**curve[-1], "labelled": list(names), "labelled_by": labelled_by}


def _fit_on_features(
    experiment: Experiment,
    chain: Chain,
    workspace: Workspace,
    run_with: Run,
    inputs: torch.Tensor,
    masks: torch.Tensor,
) -> Curve:
    """Fit a projector or an ensemble on the frozen representation."""
    fitting = _Fitting(
        experiment,
        chain,
        workspace,
        run_with,
        representation_of(
            run_with.store, chain.pretrain.key, run_with.device, layers=experiment.fit.layers
        ),
    )
    is_projector = experiment.fit.method == "projector"
    return (fitting.projector if is_projector else fitting.ensemble)(inputs, masks)


@dataclass(frozen=True)
class _Fitting:
    """What fitting needs, by either method."""

    experiment: Experiment
    chain: Chain
    workspace: Workspace
    run_with: Run
    representation: Representation

    def projector(self, inputs: torch.Tensor, masks: torch.Tensor) -> Curve:
        """Fit one network; keep its candidates and have them judged if somebody asks."""
        config, info = self.experiment.fit, self.run_with.dataset.info
        learner = ProjectorFit(
            config,
            representation=self.representation,
            num_classes=len(info.classes),
            flip_pairs=info.flip_pairs,
            device=self.run_with.device,
        )
        candidates = set(candidate_steps(config))

        def keep_candidate(step: int) -> None:
            if step not in candidates:
                return
            tensors = safetensors.torch.save(learner.projector_state())
            write_atomically(self.workspace.path / f"candidate-{step}.safetensors", tensors)
            if self.run_with.judge is not None:
                self.run_with.judge(step, self._val_miou(learner.projector))

        return run(
            learner,
            lambda step: fit_batch(inputs, masks, step=step, config=config),
            name="fit",
            steps=config.steps,
            checkpoints=self.workspace,
            report=self.run_with.report,
            after_step=keep_candidate,
        )

    def _val_miou(self, projector: nn.Module) -> float:
        evaluation, dataset = self.experiment.evaluate, self.run_with.dataset
        projector.eval()
        labels = predict(
            self.representation,
            projector,
            inputs_of("val", self.experiment, self.chain, self.run_with),
            resolution=self.experiment.fit.resolution,
            out_px=evaluation.px,
        )
        projector.train()
        truth = dataset.masks("val", px=evaluation.px)
        classes = len(dataset.info.classes)
        return mean_iou(labels, truth, classes, absent=evaluation.absent)

    def ensemble(self, inputs: torch.Tensor, masks: torch.Tensor) -> Curve:
        """Fit until no member improves; it takes seconds, so a kill starts it again."""
        config, px, run_with = self.experiment.fit, self.experiment.fit.resolution, self.run_with
        batches = PixelBatches(
            self.representation(prepared(self.representation, inputs.to(run_with.device), px)),
            resized_masks(clean_masks(masks, config.clean_pixels), px).byte(),
            config=config.pixel,
        )
        learner = PixelEnsembleFit(
            config.pixel,
            channels=self.representation.channels,
            num_classes=len(run_with.dataset.info.classes),
            pixels=batches.pixels,
            device=run_with.device,
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
        tensors = safetensors.torch.save({n: t.cpu().contiguous() for n, t in found.items()})
        write_atomically(self.workspace.path / "candidate-0.safetensors", tensors)
        return curve


def _labelled(
    experiment: Experiment, chain: Chain, run_with: Run
) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return names and masks ``(shots, px, px)`` uint8 of the images that the fit learns from."""
    data, dataset = experiment.data, run_with.dataset
    if experiment.annotated is not None:
        annotations = annotations_of(experiment.annotated, generator=chain.pretrain.key)
        names = annotations.shots(data.shots, data.draw)
        return names, annotations.masks(names, px=data.px, info=dataset.info)
    names = dataset.shots(data.shots, data.draw)
    return names, dataset.masks("train", px=data.px, names=names)


def inputs_of(split: Split, experiment: Experiment, chain: Chain, run_with: Run) -> torch.Tensor:
    """Return what the representation takes for a split: images, or their codes in a generator.

    Of the training split only the labelled images of this experiment.
    """
    if split in chain.projections:
        return read_codes(run_with.store, chain.projections[split])
    data, dataset = experiment.data, run_with.dataset
    if split == "train" and experiment.annotated is not None:
        annotations = annotations_of(experiment.annotated, generator=chain.pretrain.key)
        return annotations.codes(annotations.shots(data.shots, data.draw))
    names = dataset.shots(data.shots, data.draw) if split == "train" else None
    return dataset.images(split, px=data.px, names=names)
