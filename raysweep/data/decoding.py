"""Encoded bytes to arrays: images and index masks, square, at the size asked for.

Images are resized with PIL's BILINEAR filter, which widens with the reduction (antialiased) and
computes in integers; masks with NEAREST. Decoded bit for bit alike wherever Pillow is alike.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from raysweep.config import ConfigError

Bytes = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
INDEX_MODES = ("1", "L", "P")  # one channel of at most 8 bits; P is an index with a palette
ENDINGS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # last bytes of a whole JPEG, PNG
ORIENTATION = 0x0112  # EXIF tag; values from 5 swap height and width
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_image(data: bytes, *, px: int, where: object) -> Bytes:
    """Decode an image and squeeze it to a square.

    The camera's orientation tag is applied first, as viewers and annotation tools do. Large JPEGs
    are reduced by a power of two while decoding, to no less than twice ``px``.

    Args:
        data: a JPEG, PNG or WebP file.
        px: side of the result in pixels.
        where: named in errors.

    Returns:
        ``(px, px, 3)`` uint8 RGB.

    Raises:
        ConfigError: the file is unreadable, truncated or not 8-bit.
    """
    with _opened(data, where=where) as image:
        image.draft("RGB", (2 * px, 2 * px))
        upright = ImageOps.exif_transpose(image)
        resized = upright.convert("RGB").resize((px, px), Image.Resampling.BILINEAR)
        return np.asarray(resized)


def decode_mask(data: bytes, *, classes: Sequence[str], where: object) -> Bytes:
    """Decode an index mask at its own size.

    Args:
        data: a PNG file with one channel of at most 8 bits, grey or palette; its values are labels.
        classes: names in index order.
        where: named in errors.

    Returns:
        ``(height, width)`` uint8, each less than ``len(classes)``.

    Raises:
        ConfigError: the file is unreadable, truncated, has colours or a label without a class.
    """
    with _opened(data, where=where) as image:
        if image.format != "PNG":
            raise ConfigError(f"{where}: masks are PNG, not {image.format}, which alters labels")
        if image.mode not in INDEX_MODES:
            raise ConfigError(
                f"{where}: mask of mode {image.mode}, one 8-bit channel is needed; convert it so "
                "that each pixel's value is its class number (0 is background)"
            )
        labels = np.asarray(image).astype(np.uint8)
    highest = int(labels.max())
    if highest >= len(classes):
        raise ConfigError(
            f"{where}: label {highest} has no class; known are 0 to {len(classes) - 1} "
            f"({', '.join(classes)}); add the class to classes.json or correct the mask"
        )
    return labels


def resize_mask(labels: Bytes, *, px: int) -> Bytes:
    """Squeeze ``(height, width)`` labels to ``(px, px)``; each pixel takes the nearest label."""
    return np.asarray(Image.fromarray(labels).resize((px, px), Image.Resampling.NEAREST))


def image_size(data: bytes, *, where: object) -> tuple[int, int]:
    """Return an image's (width, height) as displayed.

    Reads the header alone if the file ends as it should, else decodes all of it.

    Raises:
        ConfigError: the file is unreadable, truncated or not 8-bit.
    """
    with _opened(data, where=where) as image:
        if not data.endswith(ENDINGS):
            image.load()
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) >= 5
    return (height, width) if turned else (width, height)


@contextmanager
def _opened(data: bytes, *, where: object) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise ConfigError(f"{where}: more than 8 bits per channel; convert it to 8 bits")
            yield image
    except ConfigError:
        raise
    except PILLOW_ERRORS as error:
        # the message of UnidentifiedImageError names a memory address, not the file
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ConfigError(
            f"{where}: unreadable or truncated ({reason}); replace or remove the file"
        ) from None


def encode_png(pixels: Bytes) -> bytes:
    """Encode ``(h, w, 3)`` RGB or ``(h, w)`` labels as PNG; speed matters more than size."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
