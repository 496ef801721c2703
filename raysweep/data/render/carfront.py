"""A car seen from the front or the rear; both are symmetric about x = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysweep.data.render.canvas import BLACK, shade
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.paintwork import Paintwork
from raysweep.data.render.shapes import Points, box, ellipse, polygon


@dataclass(frozen=True)
class _Build:
    """Proportions, ``(image, 1, 1)`` each; y down.

    Attributes:
        half: half width of the body.
        top: half width of the roof.
        belt: y of the lower edge of the windscreen.
        bottom: y of the lower edge of the body.
        roof: y of the roof.
        rear: 1 where the car is seen from the rear, else 0.
    """

    half: Field
    top: Field
    belt: Field
    bottom: Field
    roof: Field
    rear: Field

    @classmethod
    def draw(cls, draws: Draws) -> _Build:
        return cls(
            half=draws.uniform("end: half width", 0.68, 0.86),
            top=draws.uniform("end: roof width", 0.4, 0.6),
            belt=draws.uniform("end: belt", -0.08, 0.07),
            bottom=draws.uniform("end: bottom", 0.4, 0.52),
            roof=draws.uniform("end: roof", -0.6, -0.42),
            rear=draws.chance("end: rear", 0.5),
        )


def paint_front_or_rear(car: Paintwork, draws: Draws) -> None:
    """Paint the parts from back to front; ``mirrored`` draws left and right at once."""
    build = _Build.draw(draws)
    mirrored = (np.abs(car.points[0]), car.points[1])
    _paint_below(car, draws, mirrored, build=build)
    _paint_cabin(car, draws, build=build)
    _paint_body(car, draws, build=build)
    _paint_lights(car, draws, mirrored, build=build)
    _paint_plate(car, draws, build=build)


def _paint_below(car: Paintwork, draws: Draws, mirrored: Points, *, build: _Build) -> None:
    """Shadow and tyres."""
    shadow = ellipse(car.points, centre=(0, build.bottom + 0.17), radii=(build.half, 0.08))
    depth = draws.uniform("end: shadow", 0.3, 0.8)
    car.paint("background", shadow, BLACK, where=depth, softness=0.15)
    size = (0.11, draws.uniform("end: tyre", 0.13, 0.2))
    centre = (build.half - 0.14, build.bottom + 0.04)
    car.paint("wheel", box(mirrored, centre=centre, half=size, corner=0.04), car.tyre)


def _paint_cabin(car: Paintwork, draws: Draws, *, build: _Build) -> None:
    """Cabin, roof and the front or rear screen, which bears one label."""
    wide = 0.95 * build.half
    corners = [
        (-wide, build.belt),
        (-build.top, build.roof),
        (build.top, build.roof),
        (wide, build.belt),
    ]
    cabin = polygon(car.points, corners=corners)
    car.paint("body", cabin - 0.03, car.body)
    roof = np.maximum(cabin - 0.03, car.points[1] - build.roof - 0.06)
    car.paint("roof", roof, shade(car.body, draws.uniform("roof: shade", 0.8, 1.2)))
    screen = np.maximum(cabin + 0.06, car.points[1] - build.belt + 0.03)
    car.paint("windshield", screen, car.glass)


def _paint_body(car: Paintwork, draws: Draws, *, build: _Build) -> None:
    """Body with hood or trunk lid, and the bumper."""
    y = car.points[1]
    middle, half = 0.5 * (build.belt + build.bottom), 0.5 * (build.bottom - build.belt)
    body = box(car.points, centre=(0, middle), half=(build.half, half + 0.04), corner=0.12)
    car.paint("body", body, car.body)
    lid = np.maximum(body, y - build.belt - draws.uniform("end: lid", 0.1, 0.18))
    colour = shade(car.body, draws.uniform("hood: shade", 0.85, 1.15))
    car.paint("hood", lid, colour, where=1 - build.rear)
    car.paint("trunk", lid, colour, where=build.rear)
    size = (1.02 * build.half, 0.085)
    bumper = box(car.points, centre=(0, build.bottom - 0.04), half=size, corner=0.05)
    car.paint("bumper", bumper, car.bumper)


def _paint_lights(car: Paintwork, draws: Draws, mirrored: Points, *, build: _Build) -> None:
    """Grille and headlights, or tail lights, and the mirrors."""
    level = 0.5 * (build.belt + build.bottom)
    grille = box(car.points, centre=(0, level + 0.04), half=(0.5 * build.half, 0.06), corner=0.03)
    metal = draws.colour("grille", saturation=(0, 0.2), value=(0.05, 0.4))
    bars = shade(metal, 0.8 + 0.3 * np.sin(40 * car.points[0]))
    car.paint(None, grille, bars, where=1 - build.rear)
    size = draws.uniform("headlight: width", 0.09, 0.14), draws.uniform("headlight", 0.06, 0.1)
    front = ellipse(mirrored, centre=(build.half - 0.15, level), radii=size)
    car.paint("headlight", front, car.headlight, where=1 - build.rear)
    size = draws.uniform("taillight: width", 0.07, 0.11), draws.uniform("taillight", 0.06, 0.1)
    rear = box(mirrored, centre=(build.half - 0.12, level), half=size, corner=0.03)
    car.paint("taillight", rear, car.taillight, where=build.rear)
    mirror = ellipse(mirrored, centre=(build.half + 0.03, build.belt - 0.02), radii=(0.085, 0.06))
    car.paint("mirror", mirror, shade(car.body, draws.uniform("mirror: shade", 0.6, 1.1)))


def _paint_plate(car: Paintwork, draws: Draws, *, build: _Build) -> None:
    """A bright plate with dark strokes."""
    y = build.bottom - draws.uniform("plate: y", 0.02, 0.12)
    plate = box(car.points, centre=(0, y), half=(0.17, 0.06), corner=0.01)
    colour = draws.colour("plate", saturation=(0, 0.5), value=(0.7, 1))
    strokes = 0.8 + 0.35 * np.clip(3 * np.sin(55 * car.points[0]), -1, 1)
    car.paint("plate", plate, shade(colour, strokes))
