"""What annotator and segmentor are shown: labelled images, generated ones, codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from raysweep import collective, rng
from raysweep.data.augment import standardise
from raysweep.data.joint import draw_joint, move_images, move_planes, swap_pairs
from raysweep.data.sampling import batch_indices
from raysweep.fewshot.generated import GeneratedImages, Made
from raysweep.fewshot.inputs import clean_masks, resized_masks
from raysweep.fewshot.matching_config import Labelled, MatchingConfig
from raysweep.learner import Batch
from raysweep.nets.fpn import resize
from raysweep.nets.gans import Generator


def matching_batch(labelled: Labelled, *, step: int, config: MatchingConfig) -> Batch:
    """Return this worker's share of a step's labelled images."""
    chosen = batch_indices(
        step,
        count=len(labelled.inputs),
        batch=config.labelled_batch,
        seed=config.seed,
        rank=collective.rank(),
        workers=collective.size(),
    )
    return {"input": labelled.inputs[chosen], "mask": labelled.masks[chosen]}


class MatchingInputs:
    """Prepares this worker's share of what a step sees.

    Args:
        config: settings.
        generator: any StyleGAN, taken over.
        flip_pairs: pairs of classes, left and right, that a horizontal flip exchanges.
        device: where everything lives; the generator is moved there.

    Raises:
        ConfigError: a layer of the generator does not exist.
    """

    def __init__(
        self,
        config: MatchingConfig,
        *,
        generator: Generator,
        flip_pairs: Sequence[tuple[int, int]],
        device: torch.device,
    ) -> None:
        self.config, self.flip_pairs, self.device = config, flip_pairs, device
        self.px = config.resolution or generator.config.resolution
        self.generated = GeneratedImages(
            generator.to(device),
            layers=config.layers,
            psi=config.psi,
            cutoff=config.cutoff,
            seed=config.seed,
        )

    def check(self, batch: Batch) -> None:
        """Refuse a batch of another size than the config's.

        Raises:
            ValueError: see above.
        """
        share = self.config.labelled_batch // collective.size()
        if len(batch["input"]) != share or len(batch["mask"]) != share:
            raise ValueError(
                f"{len(batch['input'])} labelled images on each of {collective.size()} workers: "
                f"expected labelled_batch = {self.config.labelled_batch} in all"
            )

    def draw(self, name: str, step: int) -> Made:
        """Return generated images, float normalised at the segmentor's size, and their maps."""
        images, levels = self.generated.draw(name, step, count=self.config.generated_batch)
        return standardise((resize(images, self.px) + 1) / 2), levels

    def labelled(self, batch: Batch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labelled images, float normalised, and int64 masks at the segmentor's size."""
        config, inputs = self.config, batch["input"].to(self.device)
        masks = clean_masks(batch["mask"], config.clean_pixels).to(self.device)
        draw = draw_joint(
            config.labelled_batch,
            height=inputs.shape[-2],
            width=inputs.shape[-1],
            config=config.augment,
            generator=rng.generator(config.seed, "augment", step),
        ).part(collective.own(config.labelled_batch))
        moved = move_planes(masks[:, None], draw, px=self.px)
        labels = swap_pairs(moved, draw, self.flip_pairs)[:, 0]
        return move_images(inputs, draw, px=self.px), labels

    def codes(self, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the maps of labelled codes and int64 masks at the segmentor's size."""
        masks = clean_masks(batch["mask"], self.config.clean_pixels).to(self.device)
        levels = self.generated.of_codes(batch["input"].to(self.device))[1]
        return levels, resized_masks(masks, self.px)
