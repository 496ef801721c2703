"""Cars: pose, paint and parts seen from all sides; the two views are in files of their own."""

from __future__ import annotations

import numpy as np

from raysweep.data.render.canvas import Canvas, shade, texture
from raysweep.data.render.carfront import paint_front_or_rear
from raysweep.data.render.carside import paint_side
from raysweep.data.render.draws import Draws
from raysweep.data.render.paintwork import Paintwork
from raysweep.data.render.scene import Difficulty, paint_background

FRONT_OR_REAR = 0.35  # share of cars not seen from the side


def paint_cars(canvas: Canvas, draws: Draws, *, difficulty: Difficulty) -> None:
    """Paint a background and one car per image, labelled with ``LABEL_SETS["car16"]``."""
    body = draws.colour("body", value=(0.15, 1))
    paint_background(canvas, draws, difficulty=difficulty, decoys=(body,))
    _paint_ground(canvas, draws)
    facing = draws.chance("car: front or rear view", FRONT_OR_REAR).ravel() > 0
    for seen, paint in ((~facing, paint_side), (facing, paint_front_or_rear)):
        rows = np.flatnonzero(seen)
        part, part_draws = canvas.take(rows), draws.take(rows)
        paint(Paintwork.place(part, part_draws, body=body[rows], difficulty=difficulty), part_draws)
        canvas.put(rows, part)


def _paint_ground(canvas: Canvas, draws: Draws) -> None:
    x, y = canvas.points
    horizon = draws.uniform("ground: horizon", 0.1, 0.6)
    pattern = texture(draws, "ground", (x, 2 * y), waves=(1, 6))
    contrast = draws.uniform("ground: contrast", 0, 0.35)
    grey = draws.colour("ground", saturation=(0, 0.4), value=(0.2, 0.8))
    colour = shade(grey, 1 + contrast * pattern)
    canvas.paint(horizon - y, colour, label=0, where=draws.chance("ground: present", 0.8))
