"""A car's place, light and colours, shared by the views from the side, front and rear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysweep.data.labels import LABEL_SETS
from raysweep.data.render.canvas import Canvas, Frame, blend, shade, texture
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.scene import Difficulty
from raysweep.data.render.shapes import Points, rotate

LABEL = {name: index for index, name in enumerate(LABEL_SETS["car16"].classes)}


@dataclass(frozen=True)
class Paintwork:
    """One car per image.

    Attributes:
        frame: the car's coordinates; it is about 2 long, the front at positive x.
        lit: brightness, lower at the bottom, ``(image, height, width)``.
        body: colour of the body, patterned and lit, ``(image, 3, height, width)``.
        glass: colour of the windows with a reflection, ``(image, 3, height, width)``.
        bumper: colour of the bumpers, lit, ``(image, 3, height, width)``.
        tyre: colour, ``(image, 3, 1, 1)``.
        headlight: colour, ``(image, 3, 1, 1)``.
        taillight: colour, ``(image, 3, 1, 1)``.
    """

    frame: Frame
    lit: Field
    body: Field
    glass: Field
    bumper: Field
    tyre: Field
    headlight: Field
    taillight: Field

    @classmethod
    def place(
        cls, canvas: Canvas, draws: Draws, *, body: Field, difficulty: Difficulty
    ) -> Paintwork:
        """Draw the pose and the colours of the cars."""
        frame = _place(canvas, draws, spread=difficulty.pose_range)
        x, y = frame.points
        lit = 1 - draws.uniform("car: light", 0, 0.5) * np.clip(0.8 * y + 0.1, -0.8, 0.8)
        pattern = texture(draws, "body", (x, y), waves=(0.5, 3))
        reflection = np.clip(2 * x + 3 * y + draws.uniform("glass: reflection", -1, 1), -1, 1)
        glass = draws.colour("glass", saturation=(0, 0.4), value=(0.05, 0.8))
        plastic = draws.colour("bumper", saturation=(0, 0.2), value=(0.1, 0.6))
        alike = draws.chance("bumper: like body", 0.5)
        return cls(
            frame=frame,
            lit=lit,
            body=shade(body, (1 + draws.uniform("body: contrast", 0, 0.15) * pattern) * lit),
            glass=shade(glass, 1 + draws.uniform("glass: contrast", 0, 0.5) * reflection),
            bumper=shade(blend(plastic, shade(body, 0.75), amount=alike), lit),
            tyre=draws.colour("tyre", saturation=(0, 0.2), value=(0.02, 0.3)),
            headlight=draws.colour("headlight", saturation=(0, 0.4), value=(0.6, 1)),
            taillight=draws.colour(
                "taillight", hue=(-0.06, 0.08), saturation=(0.6, 1), value=(0.4, 1)
            ),
        )

    @property
    def points(self) -> Points:
        """Coordinates in the car's frame."""
        return self.frame.points

    def paint(
        self,
        part: str | None,
        distance: Field,
        colour: Field,
        *,
        where: Field | None = None,
        softness: float = 0.0,
    ) -> None:
        """Paint a part of the car; None only shades what is below."""
        label = None if part is None else LABEL[part]
        self.frame.paint(distance, colour, label=label, where=where, softness=softness)


def _place(canvas: Canvas, draws: Draws, *, spread: float) -> Frame:
    size = 0.88 + spread * draws.uniform("car: size", -0.16, 0.14)
    x = (canvas.points[0] - spread * draws.uniform("car: x", -0.15, 0.15)) / size
    y = (canvas.points[1] - 0.05 - spread * draws.uniform("car: y", -0.15, 0.15)) / size
    roll = spread * draws.uniform("car: roll", -0.22, 0.22) * draws.uniform("level", 0.1, 1)
    x, y = rotate((x, y), angle=roll)
    x = x * (1 - 2 * draws.chance("car: faces left", 0.5))
    x = x * (1 + spread * draws.uniform("car: foreshortening", 0, 0.2))
    y = y + spread * draws.uniform("car: perspective", -0.12, 0.12) * x
    return Frame(canvas, (x, y), size)
