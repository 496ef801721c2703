"""Pictures of masks: coloured labels, overlays, and the image-truth-prediction grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Bytes = npt.NDArray[np.uint8]
Palette = Sequence[tuple[int, int, int]]

TILE_PX = 128  # smaller images are enlarged to at least this, so that 64 px parts can be seen
GAP_PX = 6
MARGIN_PX = 14
FONT_PX = 14
SWATCH_PX = 14
INK = (34, 34, 34)
PAPER = (255, 255, 255)


def colourise(mask: Bytes, palette: Palette) -> Bytes:
    """Paint labels in their colours.

    Args:
        mask: ``(..., height, width)`` uint8 labels.
        palette: one RGB triple of 0 to 255 per class.

    Returns:
        ``(..., height, width, 3)`` uint8.

    Raises:
        ValueError: a label has no colour.
    """
    if mask.size and int(mask.max()) >= len(palette):
        raise ValueError(
            f"mask holds label {int(mask.max())}; the palette has colours for "
            f"0 to {len(palette) - 1}"
        )
    return np.asarray(palette, dtype=np.uint8)[mask]


def overlay(image: Bytes, mask: Bytes, palette: Palette, *, alpha: float) -> Bytes:
    """Blend the parts' colours over an image; background (label 0) is left as it is.

    Args:
        image: ``(..., height, width, 3)`` uint8.
        mask: ``(..., height, width)`` uint8 labels.
        palette: one RGB triple of 0 to 255 per class.
        alpha: share of the colour, 0 to 1.

    Returns:
        ``(..., height, width, 3)`` uint8.

    Raises:
        ValueError: sizes differ, a label has no colour, or ``alpha`` is out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha}: must be between 0 and 1")
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"image is {image.shape}, mask {mask.shape}: need equal sizes, RGB")
    share = np.where(mask > 0, alpha, 0.0)[..., None]
    mixed = (1 - share) * image + share * colourise(mask, palette)
    return np.rint(mixed).astype(np.uint8)


def grid(
    images: Bytes, truths: Bytes, predictions: Bytes, palette: Palette, classes: Sequence[str]
) -> Image.Image:
    """Draw a column per image with the image, its truth and its prediction, above a legend.

    Small images are enlarged without smoothing by a whole factor.

    Args:
        images: ``(count, height, width, 3)`` uint8.
        truths: ``(count, height, width)`` uint8 labels.
        predictions: ``(count, height, width)`` uint8 labels.
        palette: one RGB triple of 0 to 255 per class.
        classes: one name per class, written in the legend.

    Raises:
        ValueError: counts or sizes differ, there is no image, or names and colours do not pair.
    """
    if not len(images):
        raise ValueError("cannot draw a grid of no images")
    for name, masks in (("truths", truths), ("predictions", predictions)):
        if masks.shape != images.shape[:3]:
            raise ValueError(f"{name} are {masks.shape}, images {images.shape}: need equal sizes")
    if len(palette) != len(classes):
        raise ValueError(f"{len(classes)} class names but {len(palette)} colours; need as many")
    rows = {
        "image": images,
        "truth": colourise(truths, palette),
        "prediction": colourise(predictions, palette),
    }
    factor = max(1, math.ceil(TILE_PX / min(images.shape[1:3])))
    return _page(rows, factor=factor, palette=palette, classes=classes)


def mosaic(images: Bytes, *, columns: int | None = None) -> Image.Image:
    """Lay images side by side, row by row.

    Args:
        images: ``(count, height, width, 3)`` uint8, at least one.
        columns: images per row; as many as make a square if left out.
    """
    count, height, width, _ = images.shape
    side = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / side)
    page = np.full((rows * height, side * width, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // side * height, index % side * width
        page[top : top + height, left : left + width] = image
    return Image.fromarray(page)


def _page(
    rows: dict[str, Bytes], *, factor: int, palette: Palette, classes: Sequence[str]
) -> Image.Image:
    font = ImageFont.load_default(size=FONT_PX)
    height, width = (factor * size for size in rows["image"].shape[1:3])
    left = MARGIN_PX + math.ceil(max(font.getlength(name) for name in rows)) + 10
    total = max(left + len(rows["image"]) * (width + GAP_PX) - GAP_PX + MARGIN_PX, 480)
    places, legend_height = _legend_places(classes, font=font, width=total - left - MARGIN_PX)
    top = MARGIN_PX + len(rows) * (height + GAP_PX) + GAP_PX
    page = Image.new("RGB", (total, top + legend_height + MARGIN_PX), PAPER)
    draw = ImageDraw.Draw(page)
    for i, (name, tiles) in enumerate(rows.items()):
        y = MARGIN_PX + i * (height + GAP_PX)
        draw.text((left - 10, y + height // 2), name, fill=INK, font=font, anchor="rm")
        for j, tile in enumerate(tiles):
            enlarged = tile.repeat(factor, axis=0).repeat(factor, axis=1)
            page.paste(Image.fromarray(enlarged), (left + j * (width + GAP_PX), y))
    for (x, y), name, colour in zip(places, classes, palette, strict=True):
        box = (left + x, top + y, left + x + SWATCH_PX, top + y + SWATCH_PX)
        draw.rectangle(box, fill=tuple(colour), outline=(150, 150, 150))
        draw.text((box[2] + 6, top + y + SWATCH_PX // 2), name, fill=INK, font=font, anchor="lm")
    return page


def _legend_places(
    classes: Sequence[str],
    *,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> tuple[list[tuple[int, int]], int]:
    """Return each entry's corner, wrapped to the width in even columns, and the legend's height."""
    entry = SWATCH_PX + 24 + math.ceil(max(font.getlength(name) for name in classes))
    per_line = max(1, width // entry)
    line = SWATCH_PX + 8
    places = [((i % per_line) * entry, (i // per_line) * line) for i in range(len(classes))]
    return places, math.ceil(len(classes) / per_line) * line
