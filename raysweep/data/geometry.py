"""Random resized crops and flips of a whole batch, each image with its own box.

A separable resize of one image is ``rows @ image @ columns.T``: two small interpolation matrices.
A batch with a different box per image is then a batched matrix product, with no loop over images.
"""

from __future__ import annotations

import math

import torch

ATTEMPTS = 10
"""Draws of area and ratio before giving up, as torchvision's RandomResizedCrop."""


def draw_boxes(
    count: int,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw boxes as torchvision's RandomResizedCrop does, for all images at once.

    Args:
        count: number of images.
        height: height of the images in px.
        width: width of the images in px.
        scale: smallest and largest area of the box, as a fraction of the image's.
        ratio: smallest and largest width / height; drawn uniformly in its logarithm.
        generator: source of randomness.

    Returns:
        ``(count, 4)`` int64: top, left, height, width in px.
    """
    uniform = torch.rand((4, count, ATTEMPTS), generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * uniform[1])
    box_width = (area * aspect).sqrt().round().long()
    box_height = (area / aspect).sqrt().round().long()
    fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
    top = (uniform[2] * (height - box_height + 1)).long()
    left = (uniform[3] * (width - box_width + 1)).long()
    attempts = torch.stack([top, left, box_height, box_width], dim=-1)
    first = fits.long().argmax(1)  # argmax returns the first of equal values
    boxes = attempts[torch.arange(count), first]
    boxes[~fits.any(1)] = _largest_centred_box(height, width, ratio=ratio)
    return boxes


def crop_resize(
    images: torch.Tensor, *, boxes: torch.Tensor, flip: torch.Tensor, px: int
) -> torch.Tensor:
    """Crop, resize to a square with antialiased bilinear interpolation, flip where asked.

    Per image the same as torchvision's ``resized_crop(antialias=True)`` and ``horizontal_flip``.

    Args:
        images: ``(batch, channel, height, width)`` uint8, or float of any range.
        boxes: ``(batch, 4)`` int64: top, left, height, width.
        flip: ``(batch,)`` bool.
        px: side of the result.

    Returns:
        ``(batch, channel, px, px)`` float32 in the range of the input.
    """
    batch, channel, height, width = images.shape
    boxes, flip = boxes.to(images.device), flip.to(images.device)
    rows = _interpolation(boxes[:, 0], boxes[:, 2], size=height, px=px)
    columns = _interpolation(boxes[:, 1], boxes[:, 3], size=width, px=px)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    # axes: n image, c channel, y x input, i j output; the channels ride along with the rows
    narrow = torch.bmm(images.float().view(batch, channel * height, width), columns.mT)  # n (cy) j
    narrow = narrow.view(batch, channel, height, px).transpose(1, 2).reshape(batch, height, -1)
    small = torch.bmm(rows, narrow)  # n i (cj)
    return small.view(batch, px, channel, px).transpose(1, 2)


def crop_masks(
    masks: torch.Tensor, *, boxes: torch.Tensor, flip: torch.Tensor, px: int
) -> torch.Tensor:
    """Crop, resize by nearest neighbour, flip: the partner of :func:`crop_resize` for labels.

    The label is read where the output pixel's centre falls, torchvision's ``NEAREST_EXACT``:
    unlike its ``NEAREST`` it is not half a pixel away from what bilinear interpolation reads.

    Args:
        masks: ``(batch, height, width)`` integers.
        boxes: ``(batch, 4)`` int64: top, left, height, width.
        flip: ``(batch,)`` bool.
        px: side of the result.

    Returns:
        ``(batch, px, px)`` of the input's dtype.
    """
    boxes, flip = boxes.to(masks.device), flip.to(masks.device)
    rows = _nearest(boxes[:, 0], boxes[:, 2], px=px)
    columns = _nearest(boxes[:, 1], boxes[:, 3], px=px)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    image = torch.arange(len(masks), device=masks.device)
    return masks[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def _interpolation(
    start: torch.Tensor, length: torch.Tensor, *, size: int, px: int
) -> torch.Tensor:
    # (batch, px, size): row i holds the weights of the input pixels for output pixel i. The
    # triangle is as wide as an output pixel when shrinking (antialias), as an input pixel else.
    scale = (length / px)[:, None, None]
    position = torch.arange(px, device=start.device)[:, None] + 0.5
    pixel = torch.arange(size, device=start.device) + 0.5
    centre = start[:, None, None] + position * scale
    weight = (1 - (pixel - centre).abs_().div_(scale.clamp(min=1))).clamp_(min=0)
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weight *= inside[:, None, :]
    return weight.div_(weight.sum(-1, keepdim=True))


def _nearest(start: torch.Tensor, length: torch.Tensor, *, px: int) -> torch.Tensor:
    twice_centre = 2 * torch.arange(px, device=start.device) + 1
    return start[:, None] + (twice_centre * length[:, None]).div(2 * px, rounding_mode="floor")


def _largest_centred_box(height: int, width: int, *, ratio: tuple[float, float]) -> torch.Tensor:
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_width = min(width, round(height * aspect))
    box_height = min(height, round(width / aspect))
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return torch.tensor([top, left, box_height, box_width])
