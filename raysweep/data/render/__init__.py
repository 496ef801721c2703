"""Built-in images: procedural faces and cars with exact part labels, at any resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from raysweep import rng
from raysweep.data.render.canvas import Canvas
from raysweep.data.render.car import paint_cars
from raysweep.data.render.draws import Draws
from raysweep.data.render.face import paint_faces
from raysweep.data.render.scene import EASY, HARD, Difficulty, expose, paint_occluder, sense

__all__ = ["DOMAINS", "EASY", "HARD", "Difficulty", "render"]

Bytes = npt.NDArray[np.uint8]

# paints background and objects with the fine classes of LABEL_SETS["face17"] and ["car16"]
DOMAINS: dict[str, Callable[..., None]] = {"face": paint_faces, "car": paint_cars}

CHUNK_PIXELS = 2**16  # images painted together; more of them fall out of the processor's cache
CHUNK_IMAGES = 32


def render(
    domain: str,
    indices: Sequence[int],
    *,
    px: int,
    seed: int = 0,
    difficulty: Difficulty = EASY,
) -> tuple[Bytes, Bytes]:
    """Render images and their fine part labels.

    An image depends on the domain, seed, index, difficulty and size alone, never on the others in
    the call. At another size the same scene appears, but for the sensor's noise.

    Args:
        domain: a key of ``DOMAINS``.
        indices: which images of the endless sequence to render.
        px: side in pixels.
        seed: which sequence.
        difficulty: clutter, occlusion, pose; the same seed and index keep their other traits.

    Returns:
        Images ``(count, px, px, 3)`` uint8 RGB and masks ``(count, px, px)`` uint8, labelled as in
        ``LABEL_SETS["face17"]`` or ``LABEL_SETS["car16"]``.

    Raises:
        ValueError: the domain is unknown or ``px`` is not positive.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain = {domain!r}; built in are {', '.join(DOMAINS)}")
    if px < 1:
        raise ValueError(f"px = {px}; the side of an image is at least 1 pixel")
    images = np.empty((len(indices), px, px, 3), dtype=np.uint8)
    masks = np.empty((len(indices), px, px), dtype=np.uint8)
    size = min(CHUNK_IMAGES, max(1, CHUNK_PIXELS // px**2))
    for start in range(0, len(indices), size):
        chunk = slice(start, start + size)
        images[chunk], masks[chunk] = _render_chunk(
            domain, indices[chunk], px=px, seed=seed, difficulty=difficulty
        )
    return images, masks


def _render_chunk(
    domain: str, indices: Sequence[int], *, px: int, seed: int, difficulty: Difficulty
) -> tuple[Bytes, Bytes]:
    names = [("render", domain, int(index)) for index in indices]
    draws = Draws([rng.derive(seed, *name) for name in names])
    canvas = Canvas(len(names), px=px)
    DOMAINS[domain](canvas, draws, difficulty=difficulty)
    paint_occluder(canvas, draws, difficulty=difficulty)
    expose(canvas, draws)
    noise = [rng.numpy_generator(seed, *name, "noise") for name in names]
    return sense(canvas, draws, generators=noise), canvas.mask
