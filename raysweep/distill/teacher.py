"""A fitted annotator as teacher: masks, soft labels, and how uncertain it is of an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from raysweep.data.decoding import encode_png
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.rows import ShardRow
from raysweep.distill.soft import pack_soft, quantise_soft
from raysweep.features.generator import pack
from raysweep.features.representation import Representation
from raysweep.fewshot.ensemble import Majority, image_uncertainty, jensen_shannon, votes
from raysweep.fewshot.inputs import clean_masks, prepared
from raysweep.nets.gans import Generator
from raysweep.represent.generators import latents, to_uint8

BATCH = 16


class Said(NamedTuple):
    """What a teacher says about a batch.

    Attributes:
        masks: ``(batch, px, px)`` uint8.
        uncertainty: ``(batch,)`` float32, not negative.
        soft: ``(batch, 2, kept, px, px)`` uint8 of
            :func:`raysweep.distill.soft.quantise_soft`, if asked for.
    """

    masks: torch.Tensor
    uncertainty: torch.Tensor
    soft: torch.Tensor | None


class Teacher:
    """Labels images as :func:`raysweep.fewshot.projector.predict` does.

    An ensemble is uncertain where its members disagree (Jensen-Shannon, DatasetGAN 3.2), a single
    annotator by the mean entropy of its pixels in nats. The soft labels of an ensemble are the mean
    of its members' probabilities.

    Args:
        representation: the features.
        annotator: fitted on them, in eval mode.
        resolution: side in pixels of the fit.
        config: what is wanted.
    """

    def __init__(
        self,
        representation: Representation,
        annotator: nn.Module,
        *,
        resolution: int,
        config: LabelConfig,
    ) -> None:
        self.representation, self.annotator = representation, annotator
        self.resolution, self.config = resolution, config
        self.device = next(annotator.parameters()).device

    @torch.no_grad()
    def label(self, inputs: torch.Tensor) -> Said:
        """Label a batch.

        Args:
            inputs: ``(batch, 3, height, width)`` uint8 images, or their codes ``(batch, length)``.
        """
        x = prepared(self.representation, inputs.to(self.device), self.resolution)
        levels = self.representation(x)
        if isinstance(self.annotator, Majority):
            logits = self.annotator.ensemble(levels, self.resolution).float()
            every = logits.softmax(2)
            scores, probabilities = self._sized(votes(logits).float()), self._sized(every.mean(0))
            uncertainty = image_uncertainty(jensen_shannon(every))
        else:
            scores = self._sized(self.annotator(levels, self.resolution).float())
            probabilities = scores.softmax(1)
            entropy = torch.special.entr(probabilities).sum(1)
            uncertainty = entropy.flatten(1).mean(1)
        masks = clean_masks(scores.argmax(1).to("cpu", torch.uint8), self.config.clean_pixels)
        soft = None
        if self.config.soft:
            soft = quantise_soft(probabilities, top=self.config.soft).cpu()
        return Said(masks, uncertainty.cpu(), soft)

    def _sized(self, maps: torch.Tensor) -> torch.Tensor:
        size = (self.config.px, self.config.px)
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def rows(
        self, names: list[str], images: torch.Tensor, inputs: torch.Tensor, *, key: str
    ) -> list[ShardRow]:
        """Return rows of shards.

        Args:
            names: ids of the images.
            images: ``(count, 3, px, px)`` uint8, to be stored.
            inputs: what the representation takes for them.
            key: of the teacher.
        """
        rows: list[ShardRow] = []
        for first in range(0, len(names), BATCH):
            said = self.label(inputs[first : first + BATCH])
            pixels = images[first : first + BATCH].permute(0, 2, 3, 1).numpy()
            for at, name in enumerate(names[first : first + BATCH]):
                row = ShardRow(
                    id=name,
                    image=encode_png(pixels[at]),
                    mask=encode_png(said.masks[at].numpy()),
                    uncertainty=float(said.uncertainty[at]),
                    teacher=key,
                    soft=None if said.soft is None else pack_soft(said.soft[at]),
                )
                rows.append(row)
        return rows


@torch.no_grad()
def generate(
    generator: Generator, first: int, count: int, *, config: LabelConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generate images; image i is that of :func:`raysweep.represent.generators.sample`.

    Args:
        generator: in eval mode.
        first: index of the first image.
        count: number of images.
        config: seed, truncation and size.

    Returns:
        Images ``(count, 3, px, px)`` uint8 and their codes, noise included, ``(count, length)``;
        both on the CPU.
    """
    found = []
    for start in range(first, first + count, BATCH):
        indices = range(start, min(start + BATCH, first + count))
        ws, noise = latents(generator, indices, seed=config.seed, psi=config.psi)
        made = to_uint8(generator.synthesis(ws, noise))
        found.append((_resized(made, config.px).cpu(), pack(ws, noise).cpu()))
    images, codes = zip(*found, strict=True)
    return torch.cat(images), torch.cat(codes)


def _resized(images: torch.Tensor, px: int) -> torch.Tensor:
    if images.shape[-2:] == (px, px):
        return images
    smaller = px < images.shape[-1]
    resized = F.interpolate(images.float(), size=(px, px), mode="bilinear", antialias=smaller)
    return resized.round().clamp(0, 255).byte()
