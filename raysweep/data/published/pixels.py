"""Labels as the published data sets store them: grey pictures of parts, numpy arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.decoding import PILLOW_ERRORS, Bytes, decode_mask
from raysweep.data.published.common import ANY_LABEL

NUMPY_MAGIC = b"\x93NUMPY"


def decode_grey(data: bytes, *, where: str) -> Bytes:
    """Decode a picture of one part, of any mode, to ``(height, width)`` uint8 brightness."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("L"))
    except PILLOW_ERRORS as error:
        raise ConfigError(f"{where}: unreadable or truncated ({error})") from None


def decode_npy(data: bytes, *, where: str) -> Bytes:
    """Decode labels saved by numpy; files that are index PNGs under that name are read as such.

    Some masks have a third axis, first or last; its layers must be alike, and one is taken.

    Returns:
        ``(height, width)`` uint8.

    Raises:
        ConfigError: unreadable, of another shape, not whole numbers, or outside 0 to 255.
    """
    if not data.startswith(NUMPY_MAGIC):
        return decode_mask(data, classes=ANY_LABEL, where=where)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"{where}: unreadable or truncated ({error})") from None
    if array.dtype.kind not in "buif" or array.size == 0:
        raise ConfigError(f"{where}: {array.dtype} of shape {array.shape} holds no labels")
    flat = _without_label_axis(array, where=where)
    rounded = np.rint(flat.astype(np.float64))
    if not np.array_equal(rounded, flat) or flat.min() < 0 or flat.max() > 255:
        raise ConfigError(f"{where}: labels {flat.min()} to {flat.max()}; whole, 0 to 255 needed")
    labels: Bytes = rounded.astype(np.uint8)
    return labels


def _without_label_axis(array: npt.NDArray[Any], *, where: str) -> npt.NDArray[Any]:
    if array.ndim == 2:
        return array
    if array.ndim == 3 and min(array.shape) <= 4:
        layers = np.moveaxis(array, 0 if array.shape[0] <= 4 else -1, 0)
        if all(np.array_equal(layer, layers[0]) for layer in layers):
            return np.asarray(layers[0])
    raise ConfigError(
        f"{where}: shape {array.shape}; (height, width) is needed, with layers that are alike if "
        "there is a third axis"
    )
