"""What surrounds the object: background, distractors, an occluder, light and the sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field as Setting

from raysweep.config import Config
from raysweep.data.render.canvas import Canvas, blend, shade, texture
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.shapes import box, ellipse, rotate

NOISE = 0.03  # largest standard deviation of the sensor noise; intensities are 0 to 1
DECOYS = 3  # distractors that may borrow the object's colours, so that colour alone says little
PATTERNED = 4  # distractors that carry a texture


class Difficulty(Config):
    """How hard the rendered images are.

    Attributes:
        distractors: shapes behind the object; each appears with probability 0.6.
        occlusion: probability of a shape in front of the object (labelled background).
        natural_skin: probability of a natural skin colour; other faces have any hue (faces only).
        pose_range: spread of position, size, roll and turn; 0 is one fixed pose.
        background_strength: contrast of the background's texture, 0 is a smooth gradient.
        background_waves: highest frequency of that texture, in half waves per half image.
    """

    distractors: int = Setting(ge=0)
    occlusion: float = Setting(ge=0, le=1)
    natural_skin: float = Setting(ge=0, le=1)
    pose_range: float = Setting(ge=0, le=1)
    background_strength: float = Setting(ge=0, le=1)
    background_waves: float = Setting(ge=1)


EASY = Difficulty(
    distractors=2,
    occlusion=0.1,
    natural_skin=0.85,
    pose_range=0.6,
    background_strength=0.3,
    background_waves=2.0,
)
HARD = Difficulty(
    distractors=7,
    occlusion=0.3,
    natural_skin=0.6,
    pose_range=1.0,
    background_strength=1.0,
    background_waves=7.0,
)


def paint_background(
    canvas: Canvas, draws: Draws, *, difficulty: Difficulty, decoys: Sequence[Field]
) -> None:
    """Fill the canvas with a textured gradient and put distractors on it.

    Args:
        canvas: what to paint on.
        draws: random numbers.
        difficulty: how many distractors, how strong a texture.
        decoys: colours of the object, each ``(image, 3, 1, 1)``, lent to distractors.
    """
    x, _ = rotate(canvas.points, angle=draws.uniform("background: angle", 0, 2 * np.pi))
    first, second = draws.colour("background: first"), draws.colour("background: second")
    waves = (1.0, difficulty.background_waves)
    pattern = texture(draws, "background", canvas.points, waves=waves)
    contrast = draws.uniform("background: contrast", 0, 0.6) * difficulty.background_strength
    gradient = blend(first, second, amount=np.clip(x * 0.5 + 0.5, 0, 1))
    canvas.image[:] = shade(gradient, 1 + contrast * pattern)
    for number in range(difficulty.distractors):
        _paint_distractor(canvas, draws, number=number, decoys=decoys)


def _paint_distractor(
    canvas: Canvas, draws: Draws, *, number: int, decoys: Sequence[Field]
) -> None:
    name = f"distractor {number}"
    x, y = canvas.points
    x, y = x - draws.uniform(f"{name}: x", -1, 1), y - draws.uniform(f"{name}: y", -1, 1)
    points = rotate((x, y), angle=draws.uniform(f"{name}: angle", 0, np.pi))
    size = draws.uniform(f"{name}: width", 0.06, 0.4), draws.uniform(f"{name}: height", 0.06, 0.4)
    if number % 2:
        distance = ellipse(points, centre=(0, 0), radii=size)
    else:
        distance = box(points, centre=(0, 0), half=size, corner=0.02)
    colour = draws.colour(name)
    if number < DECOYS:
        decoy = decoys[number % len(decoys)]
        colour = blend(colour, decoy, amount=draws.chance(f"{name}: decoy", 0.6))
    if number < PATTERNED:
        pattern = texture(draws, name, points)
        colour = shade(colour, 1 + draws.uniform(f"{name}: contrast", 0, 0.6) * pattern)
    canvas.paint(distance, colour, label=0, where=draws.chance(f"{name}: present", 0.6))


def paint_occluder(canvas: Canvas, draws: Draws, *, difficulty: Difficulty) -> None:
    """Sometimes put a bar or a blob in front of everything, labelled background."""
    x, y = canvas.points
    x, y = x - draws.uniform("occluder: x", -0.9, 0.9), y - draws.uniform("occluder: y", -0.9, 0.9)
    points = rotate((x, y), angle=draws.uniform("occluder: angle", 0, np.pi))
    short, long = draws.uniform("occluder: short", 0, 1), draws.uniform("occluder: long", 0, 1)
    bar = box(points, centre=(0, 0), half=(0.05 + 0.15 * short, 0.15 + 0.45 * long), corner=0.03)
    blob = ellipse(points, centre=(0, 0), radii=(0.1 + 0.2 * short, 0.1 + 0.2 * long))
    distance = np.where(draws.chance("occluder: bar", 0.5) > 0, bar, blob)
    contrast = draws.uniform("occluder: contrast", 0, 0.5)
    colour = shade(draws.colour("occluder"), 1 + contrast * texture(draws, "occluder", points))
    present = draws.chance("occluder: present", difficulty.occlusion)
    canvas.paint(distance, colour, label=0, where=present)


def expose(canvas: Canvas, draws: Draws) -> None:
    """Light the finished scene: gradient, cast shadow, colour cast, tone curve, contrast."""
    turn = 2 * np.pi
    ramp, _ = rotate(canvas.points, angle=draws.uniform("light: angle", 0, turn))
    ramp = ramp * draws.uniform("light: gradient", 0, 0.45)
    edge, _ = rotate(canvas.points, angle=draws.uniform("shadow: angle", 0, turn))
    edge = (edge - draws.uniform("shadow: offset", -0.5, 0.5)) * draws.uniform("shadow", 2, 30)
    depth = draws.chance("shadow: present", 0.35) * draws.uniform("shadow: depth", 0.2, 0.55)
    light = (1 + ramp) * (1 - depth * np.clip(edge + 0.5, 0, 1))
    channels = [draws.uniform(f"light: {name}", 0.75, 1.15) for name in ("red", "green", "blue")]
    image = np.clip(canvas.image * np.stack(channels, axis=1) * light[:, None], 0, 1)
    # x (1 + k) / (1 + k x) spans the same curves as a gamma of 0.7 to 1.4 at a tenth of the cost
    curve = draws.uniform("tone curve", -0.4, 0.6)[:, None]
    image = image * (1 + curve) / (1 + curve * image)
    contrast = draws.uniform("contrast", 0.6, 1.1)[:, None]
    offset = draws.uniform("brightness", -0.1, 0.1)[:, None]
    canvas.image = (image - 0.5) * contrast + 0.5 + offset


def sense(
    canvas: Canvas, draws: Draws, *, generators: Sequence[np.random.Generator]
) -> npt.NDArray[np.uint8]:
    """Add sensor noise and quantise.

    Args:
        canvas: the exposed scene.
        draws: random numbers.
        generators: one per image, for the noise of its pixels.

    Returns:
        ``(image, height, width, 3)`` uint8 RGB.
    """
    shape = canvas.image.shape[1:]
    noise = np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators])
    image = canvas.image + noise * draws.uniform("sensor noise", 0, NOISE)[:, None]
    levels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))
