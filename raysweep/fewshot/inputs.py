"""Images and masks as a fit takes them: cleaned, squeezed to its resolution, normalised."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from raysweep.data.augment import normalise
from raysweep.features.representation import Representation


def clean_masks(masks: torch.Tensor, pixels: int) -> torch.Tensor:
    """Give classes with fewer than ``pixels`` pixels in a mask to the background.

    Args:
        masks: ``(count, height, width)`` uint8.
        pixels: the smallest area that is kept; 0 keeps all.

    Source: DatasetGAN's released training code, with 30 pixels.
    """
    if pixels == 0 or not len(masks):
        return masks
    flat = masks.flatten(1).long()
    area = flat.new_zeros(len(masks), 256)
    area.scatter_add_(1, flat, torch.ones_like(flat))
    return torch.where((area < pixels).gather(1, flat).view_as(masks), 0, masks)


def prepared(representation: Representation, inputs: torch.Tensor, px: int) -> torch.Tensor:
    """Return what a representation takes: images squeezed and normalised, codes as they are."""
    if representation.takes_codes:
        return inputs
    return normalise(inputs if inputs.shape[-2:] == (px, px) else _squeeze(inputs, px))


def resized_masks(masks: torch.Tensor, px: int) -> torch.Tensor:
    """Return uint8 masks ``(count, height, width)`` at another size: nearest label, int64."""
    resized = F.interpolate(masks[:, None], size=(px, px), mode="nearest-exact")
    return resized[:, 0].long()


def _squeeze(images: torch.Tensor, px: int) -> torch.Tensor:
    resized = F.interpolate(images.float(), size=(px, px), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte()
