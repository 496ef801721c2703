"""The project stage: images are looked for in a generator."""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch

from raysweep.evaluate.images import mosaic
from raysweep.features.generator import pack, unpack
from raysweep.fewshot.image_distance import pixel_pyramid
from raysweep.fewshot.latent_projection import LatentProjection
from raysweep.nets.gans import Generator
from raysweep.orchestration.chain import Chain
from raysweep.orchestration.models import CODES, GENERATOR
from raysweep.orchestration.stages import Workspace
from raysweep.orchestration.storage import write_atomically
from raysweep.orchestration.worker import Progress, Run
from raysweep.presets import Experiment
from raysweep.represent.generators import read_generator, to_uint8

BATCH = 32
"""Images that are looked for together; a kill loses at most the batch under way."""
SHOWN = 8
REPORT_STEPS = 10


def project(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``codes.safetensors`` and ``found.png``, images above what the generator makes of them.

    Deviation: the distance is a pyramid of pixel differences; the papers use LPIPS, whose weights
    are not at hand.
    """
    split = workspace.stage.config["split"]
    place = run_with.store.directory(chain.pretrain) / GENERATOR
    generator = read_generator(place).to(run_with.device)
    data, dataset = experiment.data, run_with.dataset
    names = dataset.shots(data.shots, data.draw) if split == "train" else dataset.names(split)
    images = dataset.images(split, px=generator.config.resolution, names=names)
    parts = []
    for first in range(0, len(images), BATCH):
        part = workspace.path / f"codes-{first}.safetensors"
        if not part.exists():
            found = _search(experiment, generator, images, first, run_with)
            write_atomically(part, safetensors.torch.save(found))
        parts.append(safetensors.torch.load_file(part))
        run_with.report(Progress("project", min(first + BATCH, len(images)), len(images), {}))
    codes = torch.cat([part["codes"] for part in parts])
    write_atomically(workspace.path / CODES, safetensors.torch.save({"codes": codes}))
    _compare(images[:SHOWN], codes[:SHOWN], generator, workspace)
    for part in workspace.path.glob("codes-*.safetensors"):
        part.unlink()
    return {"loss": float(torch.cat([part["loss"] for part in parts]).mean())}


def _search(
    experiment: Experiment, generator: Generator, images: torch.Tensor, first: int, run_with: Run
) -> dict[str, torch.Tensor]:
    targets = images[first : first + BATCH].float() / 127.5 - 1
    search = LatentProjection(
        experiment.project,
        generator=generator,
        targets=targets,
        distance=pixel_pyramid,
        device=run_with.device,
        first=first,
    )
    for step in range(experiment.project.steps):
        search.step()
        if step % REPORT_STEPS == 0:
            done = first + len(targets) * step // experiment.project.steps
            run_with.report(Progress("project", done, len(images), {}))
    ws, noise, losses = search.projection()
    return {"codes": pack(ws, noise).cpu(), "loss": losses[-1].cpu()}


@torch.no_grad()
def _compare(
    images: torch.Tensor, codes: torch.Tensor, generator: Generator, workspace: Workspace
) -> None:
    ws, noise = unpack(codes.to(generator.mapping.w_avg.device), generator)
    made = to_uint8(generator.synthesis(ws, noise)).cpu()
    both = torch.cat([images, made]).permute(0, 2, 3, 1).numpy()
    mosaic(both, columns=len(images)).save(workspace.path / "found.png")
