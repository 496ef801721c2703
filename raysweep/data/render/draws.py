"""Random numbers addressed by image and name, drawn for a whole batch at once.

A number is a hash of (image, name), not the next one of a stream. So an image does not depend on
the images beside it, and a new part of the scene leaves the numbers of all others as they were.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep import rng

# float32 throughout; numpy's stubs widen it when a Python float takes part, though numpy does not
Field = npt.NDArray[np.floating[Any]]


class Draws:
    """Uniform numbers of a batch of images.

    Args:
        keys: one 63-bit integer per image, e.g. from :func:`raysweep.rng.derive`.
    """

    def __init__(self, keys: Sequence[int] | npt.NDArray[np.uint64]) -> None:
        self._keys = np.asarray(keys, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, rows: npt.NDArray[np.intp]) -> Draws:
        """Return the draws of some of the images."""
        return Draws(self._keys[rows])

    def uniform(self, name: str, low: float, high: float) -> Field:
        """Return ``(image, 1, 1)`` float32 numbers in [low, high)."""
        bits = _mix(self._keys ^ _name_key(name)) >> np.uint64(40)
        unit = bits.astype(np.float32) * np.float32(2.0**-24)
        return (low + (high - low) * unit)[:, None, None]

    def chance(self, name: str, probability: float) -> Field:
        """Return ``(image, 1, 1)`` float32: 1 with the given probability, else 0."""
        return (self.uniform(name, 0.0, 1.0) < probability).astype(np.float32)

    def colour(
        self,
        name: str,
        *,
        hue: tuple[float, float] = (0.0, 1.0),
        saturation: tuple[float, float] = (0.0, 1.0),
        value: tuple[float, float] = (0.1, 1.0),
    ) -> Field:
        """Return ``(image, 3, 1, 1)`` float32 RGB in 0 to 1, uniform in the given HSV box."""
        h = self.uniform(f"{name}: hue", *hue) % 1 * 6
        s = self.uniform(f"{name}: saturation", *saturation)
        v = self.uniform(f"{name}: value", *value)
        sectors = [(offset + h) % 6 for offset in (5, 3, 1)]
        channels = [v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1) for k in sectors]
        return np.stack(channels, axis=1)


@functools.cache
def _name_key(name: str) -> np.uint64:
    return np.uint64(rng.derive(0, name))


def _mix(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finaliser of splitmix64 (Steele et al. 2014): every input bit reaches every output bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
