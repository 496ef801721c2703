"""The project stage: images are looked for in a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch

from raysweep.evaluate.images import mosaic
from raysweep.experiment import Experiment
from raysweep.features.generator import pack, unpack
from raysweep.fewshot.image_distance import Distance
from raysweep.fewshot.latent_projection import LatentProjection, ProjectionConfig
from raysweep.nets.gans import Generator
from raysweep.orchestration.compute.chain import Chain
from raysweep.orchestration.compute.distances import image_distance
from raysweep.orchestration.compute.models import CODES, GENERATOR
from raysweep.orchestration.compute.worker import Progress, Run
from raysweep.orchestration.store.stages import Workspace
from raysweep.orchestration.store.storage import write_atomically
from raysweep.represent.generators import read_generator, to_uint8

BATCH = 32
"""Images that are looked for together; a kill loses at most the batch under way."""
SHOWN = 8
REPORT_STEPS = 10


def project(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``codes.safetensors`` and ``found.png``, images above what the generator makes of them.

    Deviation: the distance is by default a pyramid of pixel differences; the papers use LPIPS.
    """
    split = workspace.stage.config["split"]
    place = run_with.store.directory(chain.pretrain) / GENERATOR
    generator = read_generator(place).to(run_with.device)
    data, dataset = experiment.data, run_with.dataset
    names = dataset.shots(data.shots, data.draw) if split == "train" else dataset.names(split)
    images = dataset.images(split, px=generator.config.resolution, names=names)
    config = experiment.project
    distance = image_distance(config, device=run_with.device)
    parts = []
    for first in range(0, len(images), BATCH):
        part = workspace.path / f"codes-{first}.safetensors"
        if not part.exists():
            batch = images[first : first + BATCH]

            def tell(share: float, done: int = first, count: int = len(batch)) -> None:
                at = done + int(count * share)
                run_with.report(Progress("project", at, len(images), {}))

            found = search(generator, batch, config, distance=distance, first=first, tell=tell)
            write_atomically(part, safetensors.torch.save(found))
        parts.append(safetensors.torch.load_file(part))
        run_with.report(Progress("project", min(first + BATCH, len(images)), len(images), {}))
    codes = torch.cat([part["codes"] for part in parts])
    write_atomically(workspace.path / CODES, safetensors.torch.save({"codes": codes}))
    _compare(images[:SHOWN], codes[:SHOWN], generator, workspace)
    for part in workspace.path.glob("codes-*.safetensors"):
        part.unlink()
    return {"loss": float(torch.cat([part["loss"] for part in parts]).mean())}


def search(
    generator: Generator,
    images: torch.Tensor,
    config: ProjectionConfig,
    *,
    distance: Distance,
    first: int = 0,
    tell: Callable[[float], None],
) -> dict[str, torch.Tensor]:
    """Search for the codes of a batch of images.

    Args:
        generator: frozen, on the device that is to search.
        images: ``(count, 3, resolution, resolution)`` uint8.
        config: settings.
        distance: what
            :func:`raysweep.orchestration.compute.distances.image_distance` makes of them.
        first: number of the first image within its set.
        tell: told the share of the steps that is done, now and then.

    Returns:
        ``codes`` ``(count, length)`` and ``loss`` ``(count,)`` before the last step, on the CPU.
    """
    targets = images.float() / 127.5 - 1
    device = generator.mapping.w_avg.device
    learner = LatentProjection(
        config,
        generator=generator,
        targets=targets,
        distance=distance,
        device=device,
        first=first,
    )
    for step in range(config.steps):
        learner.step()
        if step % REPORT_STEPS == 0:
            tell(step / config.steps)
    ws, noise, losses = learner.projection()
    return {"codes": pack(ws, noise).cpu(), "loss": losses[-1].cpu()}


@torch.no_grad()
def _compare(
    images: torch.Tensor, codes: torch.Tensor, generator: Generator, workspace: Workspace
) -> None:
    ws, noise = unpack(codes.to(generator.mapping.w_avg.device), generator)
    made = to_uint8(generator.synthesis(ws, noise)).cpu()
    both = torch.cat([images, made]).permute(0, 2, 3, 1).numpy()
    mosaic(both, columns=len(images)).save(workspace.path / "found.png")
