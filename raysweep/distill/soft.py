"""Soft labels in few bytes: per pixel the likeliest classes and their probabilities in 255ths."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import torch

LEVELS = 255
"""Quantised probabilities are whole numbers that add up to this in every pixel."""
HEADER = struct.Struct("<III")  # kept classes, height, width
CODEC = "zstd"
SUM_TOLERANCE = 1e-2  # probabilities may come from bf16


def quantise_soft(probabilities: torch.Tensor, *, top: int) -> torch.Tensor:
    """Keep the likeliest classes of each pixel.

    Their probabilities are scaled to add up to 1 and rounded to 255ths by the largest remainder,
    so that they add up to 1 exactly afterwards too. With ``t`` the discarded probability of a
    pixel, no class's probability changes by more than ``1 / 255 + t``.

    Args:
        probabilities: ``(batch, classes, height, width)`` float, adding up to 1 over at most 256
            classes.
        top: classes kept per pixel; all if there are fewer.

    Returns:
        ``(batch, 2, kept, height, width)`` uint8: classes, likeliest first, and their probability
        times 255. Of equal probabilities the lower class comes first.

    Raises:
        ValueError: ``top`` is below 1, there are more than 256 classes, or a pixel's values are
            no probabilities.
    """
    count = probabilities.shape[1]
    if top < 1 or count > LEVELS + 1:
        raise ValueError(
            f"top = {top} of {count} classes: at least 1 is kept, of at most {LEVELS + 1}"
        )
    exact = probabilities.double()
    away = (exact.sum(1) - 1).abs()
    if not (exact >= 0).all() or not (away <= SUM_TOLERANCE).all():
        raise ValueError(
            "soft labels are probabilities: not negative, adding up to 1 in every pixel; got sums "
            f"up to {float(away.max()):.3g} away from 1; pass softmax(logits, dim=1)"
        )
    ordered, classes = exact.sort(dim=1, descending=True, stable=True)
    kept = ordered[:, :top]
    scaled = kept / kept.sum(1, keepdim=True) * LEVELS
    whole = scaled.floor()
    missing = LEVELS - whole.sum(1, keepdim=True)
    largest = (whole - scaled).argsort(dim=1, stable=True).argsort(dim=1)
    return torch.stack([classes[:, :top].byte(), (whole + (largest < missing)).byte()], dim=1)


def pack_soft(planes: torch.Tensor) -> bytes:
    """Encode ``(2, kept, height, width)`` uint8 of :func:`quantise_soft`: a header and zstd."""
    data = planes.cpu().contiguous().numpy().tobytes()
    compressed: bytes = pa.compress(data, codec=CODEC, asbytes=True)
    return HEADER.pack(*planes.shape[1:]) + compressed


def unpack_soft(data: bytes) -> torch.Tensor:
    """Return what :func:`pack_soft` encoded.

    Returns:
        ``(2, kept, height, width)`` uint8.

    Raises:
        ValueError: the bytes are damaged, or a pixel's probabilities do not add up to 1.
    """
    try:
        kept, height, width = HEADER.unpack_from(data)
        size = 2 * kept * height * width
        pixels = pa.decompress(data[HEADER.size :], size, codec=CODEC, asbytes=True)
        planes = np.frombuffer(pixels, np.uint8).reshape(2, kept, height, width)
    except (struct.error, OSError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"damaged soft labels ({error})") from None
    if not (planes[1].sum(0, dtype=np.int64) == LEVELS).all():
        raise ValueError("damaged soft labels (probabilities do not add up to 1)")
    return torch.from_numpy(planes.copy())


def encode_soft(probabilities: torch.Tensor, *, top: int) -> bytes:
    """Encode the soft labels of one image.

    Args:
        probabilities: ``(classes, height, width)`` float, adding up to 1.
        top: classes kept per pixel.

    Raises:
        ValueError: as :func:`quantise_soft`.
    """
    return pack_soft(quantise_soft(probabilities[None], top=top)[0])


def decode_soft(data: bytes, *, num_classes: int) -> torch.Tensor:
    """Return the soft labels of one image; :func:`quantise_soft` bounds the error.

    Returns:
        ``(num_classes, height, width)`` float32, adding up to 1.

    Raises:
        ValueError: the bytes are damaged or name a class from ``num_classes`` on.
    """
    classes, quantised = unpack_soft(data)
    if int(classes.max()) >= num_classes:
        raise ValueError(f"soft label {int(classes.max())}: known are 0 to {num_classes - 1}")
    dense = torch.zeros(num_classes, *classes.shape[1:])
    return dense.scatter_(0, classes.long(), quantised.float() / LEVELS)
