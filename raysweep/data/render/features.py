"""Facial features: nose, mouth, eyes, brows and glasses."""

from __future__ import annotations

import numpy as np

from raysweep.data.render.canvas import blend, rgb, shade
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.head import LABEL, Head
from raysweep.data.render.shapes import Points, box, capsule, ellipse, rotate

TEETH, THROAT, SCLERA = rgb(0.85, 0.85, 0.85), rgb(0.25, 0.05, 0.08), rgb(0.93, 0.93, 0.9)


def paint_features(head: Head, draws: Draws, *, inside: Field) -> None:
    """Paint nose, mouth, eyes and brows, clipped to the face.

    Args:
        head: whose features; see :class:`Head`.
        draws: random numbers.
        inside: coverage of the face, ``(image, height, width)``.
    """
    face = head.complexion(draws)
    _paint_nose(head, draws, face=face, inside=inside)
    _paint_mouth(head, draws, inside=inside)
    for side, name in ((-1, "l"), (1, "r")):
        tilt = side * draws.uniform("eye: tilt", -0.25, 0.25)
        x, y = _eye_centre(draws)
        centred = (head.features.points[0] - side * x, head.features.points[1] - y)
        points = rotate(centred, angle=tilt)
        _paint_eye(head, draws, points, label=LABEL[f"{name}_eye"], face=face, inside=inside)
        _paint_brow(head, draws, points, label=LABEL[f"{name}_brow"], side=side, inside=inside)


def _eye_centre(draws: Draws) -> tuple[Field, Field]:
    return draws.uniform("eye: x", 0.27, 0.35), draws.uniform("eye: y", -0.24, -0.12)


def _paint_nose(head: Head, draws: Draws, *, face: Field, inside: Field) -> None:
    """A bridge that ends in a round tip with two nostrils."""
    x, y = head.features.points
    turn = head.yaw
    tip = draws.uniform("nose: tip", 0.12, 0.26)
    width = draws.uniform("nose: width", 0.1, 0.18)
    top = tip - draws.uniform("nose: length", 0.2, 0.34)
    ball = (width, width * draws.uniform("nose: flatness", 0.55, 0.8))
    bridge = capsule(
        (x - 0.04 * turn, y), start=(0, top), end=(0.04 * turn, tip), radius=0.45 * width
    )
    nose = np.minimum(
        ellipse((x - 0.06 * turn, y), centre=(0, tip), radii=ball), np.maximum(bridge, y - tip)
    )
    side_light = 0.15 * np.clip(6 * x * draws.uniform("nose: lit side", -1, 1), -1, 1)
    colour = shade(face, draws.uniform("nose: shade", 0.72, 1.22) + side_light)
    head.features.paint(nose, colour, label=LABEL["nose"], where=inside)
    for side in (-1, 1):
        centre = (0.06 * turn + side * 0.5 * width, tip + 0.35 * width)
        nostril = ellipse((x, y), centre=centre, radii=(0.22 * width, 0.16 * width))
        head.features.paint(nostril, shade(face, 0.35), where=inside)


def _paint_mouth(head: Head, draws: Draws, *, inside: Field) -> None:
    """Two lips, curved up or down, around an opening that shows teeth or throat."""
    x, y = head.features.points
    y = y - draws.uniform("mouth: y", 0.42, 0.58)
    y = y + 1.2 * draws.uniform("mouth: curve", -0.25, 0.45) * x * x
    width, lips = draws.uniform("mouth: width", 0.18, 0.34), draws.uniform("lips", 0.06, 0.125)
    gape = draws.chance("mouth: open", 0.4) * draws.uniform("mouth: gape", 0.03, 0.13)
    colour = _lip_colour(head, draws)
    both = ellipse((x, y), centre=(0, 0), radii=(width, lips + gape))
    lower = shade(colour, 0.85, head.lit)
    head.features.paint(both, lower, label=LABEL["l_lip"], where=inside)
    upper = np.maximum(both, y)
    head.features.paint(upper, shade(colour, head.lit), label=LABEL["u_lip"], where=inside)
    opening = ellipse((x, y), centre=(0, 0), radii=(0.8 * width, gape + 0.001))
    shown = blend(THROAT, TEETH, amount=draws.chance("teeth", 0.5))
    where = inside * (gape > 0)
    head.features.paint(opening, shown, label=LABEL["mouth"], where=where)


def _lip_colour(head: Head, draws: Draws) -> Field:
    red = head.skin * rgb(1.0, 0.55, 0.6)
    painted = draws.colour("lipstick", saturation=(0.3, 0.9), value=(0.3, 1))
    pale = shade(head.skin, draws.uniform("lips: pale", 0.6, 0.85))
    colour = blend(painted, red, amount=draws.chance("lips: natural", 0.5))
    return blend(colour, pale, amount=draws.chance("lips: are pale", 0.25))


def _paint_eye(
    head: Head, draws: Draws, points: Points, *, label: int, face: Field, inside: Field
) -> None:
    """Socket, white, iris and pupil; one eye in ten images is nearly closed."""
    open_share = 1 - 0.7 * draws.chance("eye: closed", 0.1)
    width = draws.uniform("eye: width", 0.13, 0.2)
    height = draws.uniform("eye: height", 0.075, 0.13) * open_share
    ball = ellipse(points, centre=(0, 0), radii=(width, height))
    socket = ellipse(points, centre=(0, 0), radii=(1.25 * width, 1.5 * height))
    head.features.paint(socket, shade(face, 0.78), where=inside)
    white = shade(SCLERA, np.clip(head.lit, 0.6, 1.1))
    head.features.paint(ball, white, label=label, where=inside)
    gaze = draws.uniform("gaze: x", -0.05, 0.05), draws.uniform("gaze: y", -0.02, 0.02)
    radius = draws.uniform("iris: radius", 0.065, 0.1)
    colour = draws.colour("iris", saturation=(0.1, 0.9), value=(0.1, 0.7))
    for size, brightness in ((radius, 1.0), (0.45 * radius, 0.2)):
        disc = np.maximum(ellipse(points, centre=gaze, radii=(size, size)), ball)
        shown = shade(colour, brightness)
        head.features.paint(disc, shown, label=LABEL["pupil"], where=inside)


def _paint_brow(
    head: Head, draws: Draws, points: Points, *, label: int, side: int, inside: Field
) -> None:
    """Two strokes that meet in a soft arch above the eye."""
    above = draws.uniform("brow: above", -0.22, -0.15)
    slant = side * draws.uniform("brow: slant", -0.08, 0.08)
    reach = draws.uniform("brow: length", 0.12, 0.19)
    radius = draws.uniform("brow: thickness", 0.03, 0.055)
    peak = (0.0, above - 0.04)
    strokes = [
        capsule(points, start=(end * reach, above - end * slant), end=peak, radius=radius)
        for end in (-1, 1)
    ]
    like_hair = draws.chance("brow: like hair", 0.7)
    colour = blend(shade(head.skin, 0.6), shade(head.hair, 0.7), amount=like_hair)
    head.features.paint(np.minimum(*strokes), colour, label=label, where=inside)


def paint_glasses(head: Head, draws: Draws, *, inside: Field) -> None:
    """Sometimes tinted lenses in round frames with a bridge and temples, clipped to the face."""
    x, y = _eye_centre(draws)
    present = inside * draws.chance("glasses", 0.25)
    radius, thickness = draws.uniform("glasses", 0.2, 0.27), draws.uniform("frame", 0.025, 0.045)
    radii = (radius * draws.uniform("glasses: roundness", 0.9, 1.2), radius)
    points = head.features.points
    lenses = np.minimum(
        ellipse(points, centre=(-x, y), radii=radii), ellipse(points, centre=(x, y), radii=radii)
    )
    gap = np.maximum(x - radii[0], 0.02)
    bridge = box(points, centre=(0, y), half=(gap, thickness))
    reach = 1.05 * head.radii[0] / (1 - 0.18 * np.abs(head.yaw))
    arms = box(points, centre=(0, y - 0.02), half=(reach, 0.9 * thickness))
    arms = np.maximum(arms, x + radii[0] - np.abs(points[0]))
    rings = np.abs(lenses) - thickness
    tint = present * draws.uniform("glasses: tint", 0, 0.35)
    head.features.paint(lenses, draws.colour("glasses: lens"), where=tint)
    colour = draws.colour("glasses: frame", saturation=(0, 0.7), value=(0, 0.5))
    wire = np.minimum(np.minimum(rings, bridge), arms)
    head.features.paint(wire, colour, label=LABEL["glasses"], where=present)
