"""A stand-in for the person who labels generated images; on the built-in data only.

Generated images have no ground truth, and a benchmark has no person. Here a U-Net plays the part,
trained on thousands of renderings with exact masks. It is an imperfect person: what it gets wrong,
annotators learn wrong. Its renderings have a seed of their own, so nothing else ever sees them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from raysweep.config import to_dict
from raysweep.data.builtin import BuiltinConfig
from raysweep.data.dataset import Dataset, open_dataset
from raysweep.data.decoding import encode_png
from raysweep.data.sampling import batch_indices
from raysweep.distill.student import Student, label_images
from raysweep.distill.student_config import StudentConfig, build_student
from raysweep.evaluate.metrics import mean_iou
from raysweep.nets.unet import UnetConfig
from raysweep.orchestration.compute.worker import Progress, Report, run
from raysweep.orchestration.store.stages import Stage, StageStore, Workspace
from raysweep.orchestration.store.storage import write_atomically

NETWORK = "network.safetensors"
SEED = 20_011
"""Of the renderings; presets and their repeats use small ones."""


@dataclass(frozen=True)
class Training:
    """How the stand-in learns.

    Attributes:
        images: renderings with exact masks.
        steps: optimiser steps of 16 images.
    """

    images: int = 4000
    steps: int = 2500

    def student(self, px: int) -> StudentConfig:
        """Return the network and its training at the generator's resolution."""
        return StudentConfig(
            network="unet",
            unet=UnetConfig(widths=(16, 32, 64, 64)),
            resolution=px,
            batch=16,
            epochs=None,
            steps=self.steps,
            lr=2e-3,
        )


class StandIn:
    """Labels images of one built-in domain.

    Args:
        domain: ``face`` or ``car``.
        px: side of the images.
        store: where its training is kept; done once.
        training: how it learns.
        labels: label set, as in :class:`raysweep.data.builtin.BuiltinConfig`.
    """

    def __init__(
        self,
        domain: str,
        *,
        px: int,
        store: StageStore,
        training: Training,
        labels: str = "merged",
    ) -> None:
        self.px, self.store, self.training = px, store, training
        self.config = training.student(px)
        rendered = BuiltinConfig(
            px=px, unlabelled=0, train=training.images, val=200, test=1, seed=SEED, labels=labels
        )
        cache = store.storage.local("data")
        self.dataset: Dataset = open_dataset(domain, cache=cache, builtin=rendered)
        self.stage = Stage(
            "stand-in",
            {"student": self.config.relevant()},
            {"data": self.dataset.info.fingerprint},
        )

    def train(self, *, device: torch.device, report: Report) -> float:
        """Train it, or find it trained; return its mIoU on 200 other renderings."""
        with self.store.claim(self.stage) as workspace:
            if workspace is not None:
                workspace.commit({"val_miou": self._learn(workspace, device, report)})
        return float(self.store.record(self.stage)["metrics"]["val_miou"])

    def _learn(self, workspace: Workspace, device: torch.device, report: Report) -> float:
        config, info = self.config, self.dataset.info
        images = self.dataset.images("train", px=self.px)
        masks = self.dataset.masks("train", px=self.px)
        learner = Student(
            config,
            num_classes=len(info.classes),
            flip_pairs=info.flip_pairs,
            device=device,
        )

        def batch_at(step: int) -> dict[str, torch.Tensor]:
            chosen = batch_indices(step, count=len(images), batch=config.batch, seed=config.seed)
            return {"image": images[chosen], "mask": masks[chosen]}

        run(
            learner,
            batch_at,
            name="stand-in",
            steps=self.training.steps,
            checkpoints=workspace,
            report=report,
        )
        tensors = safetensors.torch.save(learner.network_state())
        write_atomically(workspace.path / NETWORK, tensors)
        labels = learner.predict(self.dataset.images("val", px=self.px))
        truth = self.dataset.masks("val", px=self.px)
        return mean_iou(labels, truth, len(info.classes), absent="zero")

    def label(self, images: torch.Tensor) -> torch.Tensor:
        """Return labels ``(count, px, px)`` uint8 of uint8 images ``(count, 3, px, px)``."""
        network = build_student(self.config, len(self.dataset.info.classes))
        network.load_state_dict(safetensors.torch.load_file(self._directory() / NETWORK))
        return label_images(network.eval(), images, px=self.px, out_px=self.px)

    def write(self, directory: Path, names: list[str], images: torch.Tensor) -> None:
        """Leave ``masks/<name>.png`` and ``classes.json`` in a directory of samples to label."""
        info = self.dataset.info
        for name, mask in zip(names, self.label(images), strict=True):
            write_atomically(directory / "masks" / f"{name}.png", encode_png(mask.numpy()))
        classes = {key: to_dict(info)[key] for key in ("classes", "palette", "flip_pairs")}
        text = json.dumps(classes, indent=1) + "\n"
        write_atomically(directory / "classes.json", text.encode())

    def _directory(self) -> Path:
        return self.store.directory(self.stage)


def announce(progress: Progress) -> str:
    """Word how far the training is."""
    loss = progress.metrics.get("loss", float("nan"))
    return f"stand-in: step {progress.step} of {progress.steps}, loss {loss:.2f}"
