"""The .mat files of PASCAL-Part: objects with a mask, and their parts with a mask each."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

from raysweep.config import ConfigError
from raysweep.data.decoding import Bytes
from raysweep.data.published.common import optional


class Thing(NamedTuple):
    """One annotated object.

    Attributes:
        category: class name of VOC.
        mask: ``(height, width)`` uint8, the object's pixels are 1.
        parts: name and mask of each part, in the file's order.
    """

    category: str
    mask: Bytes
    parts: tuple[tuple[str, Bytes], ...]


def read_objects(data: bytes, *, where: str) -> list[Thing]:
    """Read the struct ``anno``: fields imname, objects (class, class_ind, mask, parts).

    Raises:
        ConfigError: scipy is missing, the file is damaged or has no such struct.
    """
    scipy_io = optional("scipy.io", reads="PASCAL-Part")
    try:
        loaded = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)
        things = [_thing(found) for found in _listed(loaded["anno"].objects)]
    except Exception as error:  # scipy raises whatever its parser meets
        raise ConfigError(f"{where}: not a file of PASCAL-Part, or damaged ({error})") from None
    if not things:
        raise ConfigError(f"{where}: holds no object")
    return things


def _thing(found: Any) -> Thing:
    parts = tuple((str(part.part_name), _mask(part.mask)) for part in _listed(found.parts))
    return Thing(str(getattr(found, "class")), _mask(found.mask), parts)


def _mask(value: Any) -> Bytes:
    array = np.asarray(value, dtype=np.uint8)
    if array.ndim != 2:
        raise ValueError(f"mask of shape {array.shape}")
    return array


def _listed(value: Any) -> list[Any]:
    """Return a struct array as a list; squeezing makes one element bare and none an array."""
    return list(value.ravel()) if isinstance(value, np.ndarray) else [value]
