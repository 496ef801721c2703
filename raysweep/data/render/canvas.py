"""A batch of images and masks being painted, layer by layer, in resolution-free coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.shapes import Points, Scalar, rotate

BLACK: Field = np.zeros((1, 3, 1, 1), dtype=np.float32)


def rgb(red: float, green: float, blue: float) -> Field:
    """Return a colour for all images, ``(1, 3, 1, 1)`` float32, from components in 0 to 1."""
    return np.array([red, green, blue], dtype=np.float32)[None, :, None, None]


def blend(first: Field, second: Field, *, amount: Field) -> Field:
    """Return ``first`` where amount is 0 and ``second`` where it is 1 (amount: scalar field)."""
    return first + (second - first) * amount[:, None]


def shade(colour: Field, *factors: Scalar) -> Field:
    """Return the colour multiplied by brightness fields of shape ``(image, height, width)``."""
    for factor in factors:
        colour = colour * (factor[:, None] if isinstance(factor, np.ndarray) else factor)
    return colour


class Canvas:
    """Images and masks in the making.

    Attributes:
        px: side in pixels.
        image: ``(image, 3, height, width)`` float32 RGB, 0 to 1 (colour planes paint fastest).
        mask: ``(image, height, width)`` uint8 labels.
        points: pixel centres, x and y from -1 to 1, y down.
    """

    def __init__(self, count: int, *, px: int) -> None:
        centres = (np.arange(px, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / px) - 1
        self.px = px
        self.image: Field = np.zeros((count, 3, px, px), dtype=np.float32)
        self.mask = np.zeros((count, px, px), dtype=np.uint8)
        self.points: Points = (centres[None, None, :], centres[None, :, None])

    def take(self, rows: npt.NDArray[np.intp]) -> Canvas:
        """Return a copy holding some of the images."""
        part = Canvas(0, px=self.px)
        part.image, part.mask = self.image[rows], self.mask[rows]
        return part

    def put(self, rows: npt.NDArray[np.intp], part: Canvas) -> None:
        """Write the images of ``part`` back to the given rows."""
        self.image[rows], self.mask[rows] = part.image, part.mask

    def paint(
        self,
        distance: Field,
        colour: Field,
        *,
        label: int | None = None,
        where: Field | None = None,
        softness: Scalar = 0.0,
    ) -> Field:
        """Composite one layer over the image.

        Args:
            distance: signed distance in canvas units (the canvas is 2 wide), ``(image, h, w)``.
            colour: ``(image, 3, h, w)`` or broadcastable, RGB.
            label: written to the mask where the layer covers more than half a pixel; None for
                layers that only shade what is below.
            where: opacity in 0 to 1, ``(image, h, w)`` or ``(image, 1, 1)``; None is opaque.
            softness: width of the blurred edge in canvas units, beside the pixel's own width.

        Returns:
            Coverage in 0 to 1, ``(image, h, w)``.
        """
        coverage = np.clip(0.5 - distance / (softness + 2 / self.px), 0, 1)
        if where is not None:
            coverage = coverage * where
        rows = np.flatnonzero(coverage.any(axis=(0, 2)))
        if not len(rows):
            return coverage
        # a part covers few rows of pixels: leave out those that no image of the batch covers
        used = slice(rows[0], rows[-1] + 1) if coverage.shape[1] > 1 else slice(None)
        if colour.shape[2] > 1:
            colour = colour[:, :, used]
        image = self.image[:, :, used]
        image += (colour - image) * coverage[:, None, used]
        if label is not None:
            np.copyto(self.mask[:, used], np.uint8(label), where=coverage[:, used] > 0.5)
        return coverage


@dataclass(frozen=True)
class Frame:
    """An object's own coordinates on a canvas.

    Attributes:
        canvas: what the object is painted on.
        points: coordinates of the pixels in the object's frame.
        scale: canvas units per unit of the frame, ``(image, 1, 1)``.
    """

    canvas: Canvas
    points: Points
    scale: Field

    def paint(
        self,
        distance: Field,
        colour: Field,
        *,
        label: int | None = None,
        where: Field | None = None,
        softness: float = 0.0,
    ) -> Field:
        """Paint a layer whose distance and softness are in units of the frame."""
        return self.canvas.paint(
            distance * self.scale,
            colour,
            label=label,
            where=where,
            softness=softness * self.scale if softness else 0.0,
        )


def texture(
    draws: Draws, name: str, points: Points, *, waves: tuple[float, float] = (1.0, 7.0)
) -> Field:
    """Return a random pattern in about -1.3 to 1.3: stripes, waves, zig-zags, checks or plain.

    A sine along a random direction, bent by a second sine across it, clipped softly, and for
    checks multiplied by that second sine. Analytic, so independent of the resolution.

    Args:
        draws: random numbers.
        name: prefix of the names of the numbers drawn.
        points: coordinates that the pattern is fixed to.
        waves: lowest and highest frequency, in half waves per unit (drawn log-uniformly).
    """
    along, across = rotate(points, angle=draws.uniform(f"{name}: angle", 0, np.pi))
    low, high = np.log(waves[0]), np.log(waves[1])
    frequency = np.exp(draws.uniform(f"{name}: frequency", low, high)) * np.float32(np.pi)
    phase = draws.uniform(f"{name}: phase", 0, 2 * np.pi)
    bend = draws.chance(f"{name}: bent", 0.4) * draws.uniform(f"{name}: bend", 0.5, 3)
    cross = np.sin(across * draws.uniform(f"{name}: cross", 1, 5) * np.float32(np.pi) + 2 * phase)
    wave: Field = np.sin(along * frequency + phase + bend * cross)
    wave = wave * draws.uniform(f"{name}: hardness", 1, 6)
    wave = wave / (1 + np.abs(wave))
    checks = draws.chance(f"{name}: checks", 0.45)
    return wave * (1 - checks + checks * cross * 1.3)
