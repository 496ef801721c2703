"""The chain of stages behind one number: pretrain, fit, evaluate.

Each stage reads its inputs from the store and leaves files in its workspace; the docstring of its
function lists them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import nn

from raysweep import collective
from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.data.dataset import Dataset, DatasetInfo
from raysweep.data.records import Split
from raysweep.data.sampling import batch_indices
from raysweep.evaluate.images import grid
from raysweep.evaluate.metrics import confusion
from raysweep.evaluate.protocols import five_folds, held_out
from raysweep.features.representation import RawColour, Representation, TrunkFeatures
from raysweep.fewshot.projector import FitConfig, ProjectorFit, candidate_steps, fit_batch, predict
from raysweep.learner import identity
from raysweep.nets.projectors import build_projector
from raysweep.nets.resnet import build_trunk
from raysweep.orchestration.stages import Stage, StageStore, Workspace
from raysweep.orchestration.storage import write_atomically
from raysweep.orchestration.worker import Checkpoints, Curve, Progress, Report, run
from raysweep.presets import Experiment
from raysweep.represent.config import RepresentConfig
from raysweep.represent.moco import Moco
from raysweep.represent.simsiam import Simsiam
from raysweep.represent.untrained import untrained_trunk
from raysweep.represent.weights import load_trunk, read_trunk, save_trunk

TRUNK = "trunk.safetensors"
LEARNERS: dict[str, type[Moco] | type[Simsiam]] = {"moco": Moco, "simsiam": Simsiam}


class Chain(NamedTuple):
    """The stages of one experiment, in the order in which they are computed."""

    pretrain: Stage
    fit: Stage
    evaluate: Stage


def chain_of(experiment: Experiment, fingerprint: str) -> Chain:
    """Return the stages of an experiment on the dataset with that fingerprint."""
    data, images = experiment.data, {"data": fingerprint}
    represent = experiment.pretrain.relevant()
    if experiment.pretrain.weights is not None and "weights" in represent:
        represent["weights"] = file_digest(experiment.pretrain.weights)  # the content, not the path
    sees_images = experiment.pretrain.method in ("moco", "simsiam", "random")
    pretrain = Stage(
        "pretrain",
        {"represent": represent} | ({"px": data.px} if sees_images else {}),
        images if sees_images else {},
    )
    fit = Stage(
        "fit",
        {"fit": to_dict(experiment.fit), "px": data.px, "shots": data.shots, "draw": data.draw},
        {"pretrain": pretrain.key} | images,
    )
    evaluate = Stage(
        "evaluate",
        {"evaluate": to_dict(experiment.evaluate)},
        {"fit": fit.key} | images,
    )
    return Chain(pretrain, fit, evaluate)


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
        waiting = Waiting(stage, run_with.report)
        with store.claim(stage, waiting=waiting) as workspace:
            if workspace is not None:
                workspace.commit(function(experiment, chain, workspace, run_with))
    return store.record(chain.evaluate)


class Waiting:
    """Reports that another process is computing the stage."""

    def __init__(self, stage: Stage, report: Report) -> None:
        self.stage, self.report = stage, report

    def __call__(self) -> None:
        """Report once."""
        self.report(Progress(f"waiting for {self.stage}", 0, 1, {}))


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

    def confusions(split: Split, candidate: int) -> torch.Tensor:
        images = dataset.images(split, px=experiment.data.px)
        truth = dataset.masks(split, px=config.px)
        labels = model.predict(images, candidate=candidate, out_px=config.px)
        run_with.report(Progress("evaluate", steps.index(candidate) + 1, len(steps), {}))
        return confusion(labels, truth, len(dataset.info.classes))

    test = torch.stack([confusions("test", step) for step in steps])
    if config.protocol == "five_folds":
        result = five_folds(test, dataset.names("test"), absent=config.absent)
        chosen = steps[result.selected[0]]
    else:
        val = torch.stack([confusions("val", step).sum(0) for step in steps])
        result = held_out(val, test.sum(1), absent=config.absent)
        chosen = steps[result.selected[0]]
    names = dataset.names("test")[: config.images]
    images = dataset.images("test", px=config.px, names=names)
    truth = dataset.masks("test", px=config.px, names=names)
    labels = model.predict(images, candidate=chosen, out_px=config.px)
    picture = grid(
        images.permute(0, 2, 3, 1).numpy(),
        truth.numpy(),
        labels.numpy(),
        dataset.info.palette,
        dataset.info.classes,
    )
    picture.save(workspace.path / "grid.png")
    return {**asdict(result.scores), "candidate": chosen}


@dataclass(frozen=True)
class Model:
    """A fitted projector on its frozen representation, read from the store."""

    representation: Representation
    projector: nn.Module
    directory: Path
    config: FitConfig
    info: DatasetInfo

    def predict(
        self, images: torch.Tensor, *, candidate: int, out_px: int | tuple[int, int]
    ) -> torch.Tensor:
        """Return uint8 labels ``(n, height, width)`` for uint8 images ``(n, 3, h, w)``."""
        state = safetensors.torch.load_file(self.directory / f"candidate-{candidate}.safetensors")
        self.projector.load_state_dict(state)
        return predict(
            self.representation,
            self.projector,
            images,
            resolution=self.config.resolution,
            out_px=out_px,
        )


def load_model(store: StageStore, key: str, device: torch.device) -> Model:
    """Return the model that the fit stage with that key left."""
    directory = store.directory_of("fit", key)
    record = json.loads((directory / "stage.json").read_text())
    info = from_dict(DatasetInfo, json.loads((directory / "dataset.json").read_text()))
    config = from_dict(FitConfig, record["config"]["fit"])
    representation = representation_of(store, record["inputs"]["pretrain"], device)
    projector = build_projector(config.projector, representation.channels, len(info.classes))
    return Model(representation, projector.to(device).eval(), directory, config, info)


def representation_of(store: StageStore, key: str, device: torch.device) -> Representation:
    """Return the frozen representation that the pretrain stage with that key left."""
    directory = store.directory_of("pretrain", key)
    record = json.loads((directory / "stage.json").read_text())
    config = from_dict(RepresentConfig, record["config"]["represent"])
    if config.method == "rgb":
        return RawColour()
    return TrunkFeatures(read_trunk(directory / TRUNK).to(device))


def file_digest(path: str) -> str:
    """Return a hash of a file's content.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
    except OSError as error:
        raise ConfigError(
            f"pretrain.weights = {path!r} cannot be read: {error.strerror}; give a local file"
        ) from None


def _save_curve(curve: Curve, workspace: Workspace) -> None:
    write_atomically(workspace.path / "curve.json", _json(curve))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
