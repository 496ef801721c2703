"""A car seen from the side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysweep.data.render.canvas import BLACK, shade
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.paintwork import Paintwork
from raysweep.data.render.shapes import box, ellipse, polygon

PANEL = 0.09  # height of hood and trunk lid, and of the roof


@dataclass(frozen=True)
class _Build:
    """Proportions, ``(image, 1, 1)`` each; x to the front, y down.

    Attributes:
        length: half length.
        belt: y of the lower edge of the windows.
        sill: y of the lower edge of the doors.
        roof: y of the roof.
        cabin_front: x where the windscreen meets the hood.
        cabin_rear: x where the rear window meets the trunk.
        screen: how far the windscreen leans back.
        tail: how far the rear window leans forward.
        pillar: width of a pillar.
        middle: x of the pillar between the doors.
        second_door: 1 for cars with four doors, else 0.
    """

    length: Field
    belt: Field
    sill: Field
    roof: Field
    cabin_front: Field
    cabin_rear: Field
    screen: Field
    tail: Field
    pillar: Field
    middle: Field
    second_door: Field

    @classmethod
    def draw(cls, draws: Draws) -> _Build:
        return cls(
            length=draws.uniform("side: length", 0.88, 1.08),
            belt=draws.uniform("side: belt", -0.08, 0.05),
            sill=draws.uniform("side: sill", 0.28, 0.38),
            roof=draws.uniform("side: roof", -0.56, -0.38),
            cabin_front=draws.uniform("side: cabin front", 0.25, 0.48),
            cabin_rear=draws.uniform("side: cabin rear", -0.88, -0.52),
            screen=draws.uniform("side: screen", 0.15, 0.36),
            tail=draws.uniform("side: tail", 0.03, 0.28),
            pillar=draws.uniform("side: pillar", 0.02, 0.045),
            middle=draws.uniform("side: middle", -0.25, -0.02),
            second_door=draws.chance("side: four doors", 0.6),
        )


def paint_side(car: Paintwork, draws: Draws) -> None:
    """Paint the parts from back to front."""
    build = _Build.draw(draws)
    shadow = ellipse(car.points, centre=(0, 0.57), radii=(1.02 * build.length, 0.1))
    car.paint(
        "background", shadow, BLACK, where=draws.uniform("side: shadow", 0.3, 0.8), softness=0.15
    )
    cabin = _paint_cabin(car, draws, build=build)
    _paint_lower_body(car, draws, build=build)
    _paint_windows(car, draws, build=build, cabin=cabin)
    _paint_doors(car, draws, build=build)
    _paint_ends(car, draws, build=build)
    for name, reach in (("front", 1), ("rear", -1)):
        x = reach * (build.length - draws.uniform(f"side: {name} axle", 0.3, 0.42))
        _paint_wheel(car, draws, x=x, y=build.sill + 0.05)


def _paint_cabin(car: Paintwork, draws: Draws, *, build: _Build) -> Field:
    """Body colour up to the roof; returns the cabin's distance."""
    corners = [
        (build.cabin_rear, build.belt + 0.05),
        (build.cabin_rear + build.tail, build.roof),
        (build.cabin_front - build.screen, build.roof),
        (build.cabin_front, build.belt + 0.05),
    ]
    cabin = polygon(car.points, corners=corners) - 0.02
    car.paint("body", cabin, car.body)
    roof = np.maximum(cabin, car.points[1] - build.roof - 0.06)
    car.paint("roof", roof, shade(car.body, draws.uniform("roof: shade", 0.8, 1.2)))
    return cabin


def _paint_lower_body(car: Paintwork, draws: Draws, *, build: _Build) -> None:
    """Body under a line that falls towards both ends; its top strips are hood and trunk."""
    x, y = car.points
    middle, half = 0.5 * (build.belt + build.sill), 0.5 * (build.sill - build.belt)
    falls = draws.uniform("hood: fall", 0.02, 0.2), draws.uniform("trunk: fall", 0, 0.1)
    line = build.belt + np.where(x > 0, *falls) * np.clip(np.abs(x) - 0.3, 0, 1)
    lower = box((x, y), centre=(0, middle), half=(build.length, half + 0.06), corner=0.1)
    lower = np.maximum(lower, line - y)
    car.paint("body", lower, car.body)
    strip = np.maximum(lower, y - line - PANEL)
    hood = np.maximum(strip, build.cabin_front - x)
    car.paint("hood", hood, shade(car.body, draws.uniform("hood: shade", 0.85, 1.15)))
    trunk = np.maximum(strip, x - build.cabin_rear)
    car.paint("trunk", trunk, shade(car.body, draws.uniform("trunk: shade", 0.85, 1.15)))


def _paint_windows(car: Paintwork, draws: Draws, *, build: _Build, cabin: Field) -> None:
    """Side windows, a slice of the windscreen in front of them, and the pillars between."""
    x, y = car.points
    panes = np.maximum(cabin + build.pillar + 0.04, y - build.belt)
    car.paint("window", panes, car.glass)
    rise = np.clip((build.belt - y) / (build.belt - build.roof), 0, 1)
    edge = build.cabin_front - build.screen * rise - 0.15
    seen = draws.chance("side: windscreen seen", 0.75)
    screen = shade(car.glass, draws.uniform("windscreen: shade", 0.75, 1.3))
    car.paint("windshield", np.maximum(panes, edge - x), screen, where=seen)
    above = np.maximum(cabin, y - build.belt)
    front_pillar = np.maximum(np.abs(x - edge) - 0.5 * build.pillar, above)
    car.paint("body", front_pillar, car.body, where=seen)
    middle = np.maximum(np.abs(x - build.middle) - 0.6 * build.pillar, above)
    car.paint("body", middle, car.body)


def _paint_doors(car: Paintwork, draws: Draws, *, build: _Build) -> None:
    """One or two doors with dark seams and handles, and the mirror."""
    level, half = 0.5 * (build.belt + build.sill), 0.5 * (build.sill - build.belt)
    handle = draws.colour("handle", saturation=(0, 0.2), value=(0.2, 1))
    ends = (
        ("front", build.middle, build.cabin_front - 0.06, None),
        ("rear", build.cabin_rear + 0.12, build.middle, build.second_door),
    )
    for name, rear, front, where in ends:
        centre, width = 0.5 * (rear + front), 0.5 * (front - rear) - 0.015
        door = box(car.points, centre=(centre, level), half=(width, half), corner=0.04)
        colour = shade(car.body, draws.uniform(f"{name} door: shade", 0.9, 1.1))
        car.paint("door", door, colour, where=where)
        car.paint(None, np.abs(door) - 0.01, shade(car.body, 0.55), where=where)
        place = (rear + 0.1, build.belt + 0.09)
        grip = box(car.points, centre=place, half=(0.07, 0.026), corner=0.01)
        car.paint("handle", grip, handle, where=where)
    mirror = ellipse(
        car.points, centre=(build.cabin_front - 0.08, build.belt - 0.02), radii=(0.075, 0.055)
    )
    car.paint("mirror", mirror, shade(car.body, draws.uniform("mirror: shade", 0.6, 1.1)))


def _paint_ends(car: Paintwork, draws: Draws, *, build: _Build) -> None:
    """Bumpers and lights at both ends."""
    for name, reach in (("front", 1), ("rear", -1)):
        centre = (reach * (build.length - 0.06), build.sill - draws.uniform(f"{name} end", 0, 0.06))
        bumper = box(car.points, centre=centre, half=(0.13, 0.075), corner=0.04)
        car.paint("bumper", bumper, car.bumper)
    level = 0.5 * (build.belt + build.sill)
    size = draws.uniform("headlight: width", 0.06, 0.11), draws.uniform("headlight", 0.045, 0.07)
    front = ellipse(car.points, centre=(build.length - 0.08, level), radii=size)
    car.paint("headlight", front, car.headlight)
    size = draws.uniform("taillight: width", 0.04, 0.08), draws.uniform("taillight", 0.05, 0.09)
    rear = box(car.points, centre=(0.05 - build.length, level - 0.02), half=size, corner=0.02)
    car.paint("taillight", rear, car.taillight)


def _paint_wheel(car: Paintwork, draws: Draws, *, x: Field, y: Field) -> None:
    """A dark arch, the tyre and a rim with spokes."""
    radius = draws.uniform("wheel: radius", 0.17, 0.24)
    arch = ellipse(car.points, centre=(x, y - 0.01), radii=(1.18 * radius, 1.18 * radius))
    car.paint("body", arch, BLACK + np.float32(0.04))
    tyre = ellipse(car.points, centre=(x, y), radii=(radius, radius))
    car.paint("wheel", tyre, car.tyre)
    spokes = np.floor(draws.uniform("rim: spokes", 3, 8))
    angle = np.arctan2(car.points[1] - y, car.points[0] - x)
    pattern = np.clip(3 * np.sin(angle * spokes + draws.uniform("rim: turn", 0, 6)), -1, 1)
    colour = shade(draws.colour("rim", saturation=(0, 0.4), value=(0.3, 1)), 0.75 + 0.25 * pattern)
    rim = ellipse(car.points, centre=(x, y), radii=(0.62 * radius, 0.62 * radius))
    car.paint("rim", rim, colour)
