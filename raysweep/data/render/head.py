"""A head: where it is, how it is turned and lit, and which colours it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysweep.data.labels import LABEL_SETS
from raysweep.data.render.canvas import Canvas, Frame, blend, shade, texture
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.scene import Difficulty
from raysweep.data.render.shapes import ellipse, rotate

LABEL = {name: index for index, name in enumerate(LABEL_SETS["face17"].classes)}


@dataclass(frozen=True)
class Head:
    """One head per image. In its frame the face is about 0.7 wide and 0.9 high either way.

    Attributes:
        frame: coordinates that shift, scale and roll with the head, slightly warped.
        upright: the same without roll and warp, for the body.
        features: coordinates of the facial features, shifted and squeezed as the head turns.
        radii: half width and half height of the skull.
        roll: angle in radians.
        yaw: turn of the face, -1 (to the image's left) to 1.
        pitch: turn down in -1 to 1.
        lit: brightness over the head, ``(image, height, width)``.
        skin: colour, ``(image, 3, 1, 1)``.
        hair: colour, ``(image, 3, 1, 1)``.
    """

    frame: Frame
    upright: Frame
    features: Frame
    radii: tuple[Field, Field]
    roll: Field
    yaw: Field
    pitch: Field
    lit: Field
    skin: Field
    hair: Field

    @classmethod
    def place(cls, canvas: Canvas, draws: Draws, *, difficulty: Difficulty) -> Head:
        """Draw the pose, build and colours of the heads."""
        spread = difficulty.pose_range
        size = 0.8 + spread * draws.uniform("head: size", -0.18, 0.15)
        roll = spread * draws.uniform("head: roll", -0.45, 0.45) * draws.uniform("upright", 0.1, 1)
        x = (canvas.points[0] - spread * draws.uniform("head: x", -0.2, 0.2)) / size
        y = (canvas.points[1] + 0.05 - spread * draws.uniform("head: y", -0.2, 0.2)) / size
        upright = Frame(canvas, (x, y), size)
        x, y = rotate((x, y), angle=roll)
        # a gentle bend, so that no two outlines agree
        bend, phase = draws.uniform("bend x: waves", 1, 3), draws.uniform("bend x: phase", 0, 6)
        x = x + draws.uniform("bend x", 0, 0.07) * np.sin(y * bend + phase)
        bend, phase = draws.uniform("bend y: waves", 1, 3), draws.uniform("bend y: phase", 0, 6)
        y = y + draws.uniform("bend y", 0, 0.05) * np.sin(x * bend + phase)
        yaw, pitch = spread * draws.uniform("yaw", -1, 1), spread * draws.uniform("pitch", -1, 1)
        features = ((x - 0.22 * yaw) / (1 - 0.18 * np.abs(yaw)), y - 0.1 * pitch)
        radii = draws.uniform("head: width", 0.62, 0.78), draws.uniform("head: height", 0.84, 1)
        skin = _skin(draws, natural=difficulty.natural_skin)
        return cls(
            frame=Frame(canvas, (x, y), size),
            upright=upright,
            features=Frame(canvas, features, size),
            radii=radii,
            roll=roll,
            yaw=yaw,
            pitch=pitch,
            lit=_light(draws, x=x, y=y),
            skin=skin,
            hair=_hair(draws, skin=skin),
        )

    def outline(self, draws: Draws) -> Field:
        """Distance to the skull's edge; the jaw is narrower or wider than the temples."""
        x, y = self.frame.points
        jaw = draws.uniform("jaw", -0.1, 0.24)
        return ellipse((x / (1 - jaw * np.clip(y, -0.2, 1.2)), y), centre=(0, 0), radii=self.radii)

    def complexion(self, draws: Draws) -> Field:
        """Colour of the face: lit skin with a faint pattern, darker towards the edge."""
        x, y = self.frame.points
        edge = (x / self.radii[0]) ** 2 + (y / self.radii[1]) ** 2
        pattern = texture(draws, "skin", (x, y), waves=(0.5, 3))
        contrast = draws.uniform("skin: contrast", 0, 0.12)
        shading = (1 + contrast * pattern) * self.lit * (1 - 0.25 * np.clip(edge, 0, 1))
        return shade(self.skin, shading)


def _light(draws: Draws, *, x: Field, y: Field) -> Field:
    ramp, _ = rotate((x, y), angle=draws.uniform("head light: angle", 0, 2 * np.pi))
    return 1 + draws.uniform("head light", 0.05, 0.4) * np.clip(ramp, -1.2, 1.2)


def _skin(draws: Draws, *, natural: float) -> Field:
    usual = draws.colour("skin", hue=(0.02, 0.1), saturation=(0.2, 0.65), value=(0.3, 1))
    unusual = draws.colour("unusual skin", saturation=(0.1, 0.7), value=(0.3, 1))
    return blend(unusual, usual, amount=draws.chance("skin: natural", natural))


def _hair(draws: Draws, *, skin: Field) -> Field:
    like_skin = skin * draws.uniform("hair: like skin", 0.7, 1.1)[:, None]
    own = draws.colour("hair", saturation=(0, 0.8), value=(0.05, 0.9))
    return blend(own, like_skin, amount=draws.chance("hair: is like skin", 0.15))
