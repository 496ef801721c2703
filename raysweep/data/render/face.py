"""Faces: the head's pose, hair, body, skull and hat, painted back to front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysweep.data.render.canvas import Canvas, blend, shade, texture
from raysweep.data.render.draws import Draws, Field
from raysweep.data.render.features import paint_features, paint_glasses
from raysweep.data.render.head import LABEL, Head
from raysweep.data.render.scene import Difficulty, paint_background
from raysweep.data.render.shapes import box, ellipse


def paint_faces(canvas: Canvas, draws: Draws, *, difficulty: Difficulty) -> None:
    """Paint a background and one face per image, labelled with ``LABEL_SETS["face17"]``."""
    head = Head.place(canvas, draws, difficulty=difficulty)
    paint_background(canvas, draws, difficulty=difficulty, decoys=(head.skin, head.hair))
    hair = _Hair.style(head, draws)
    hair.paint_back(head)
    _paint_body(head, draws)
    hair.paint_over_shoulders(head, draws)
    _paint_ears(head, draws, hidden=hair.covers_ears)
    inside = _paint_skull(head, draws)
    paint_features(head, draws, inside=inside)
    hair.paint_fringe(head, draws)
    _paint_hat(head, draws, hair=hair)
    paint_glasses(head, draws, inside=inside)


@dataclass(frozen=True)
class _Hair:
    """A hair style; distances in the head's frame, colour with its pattern and light."""

    mass: Field
    locks: Field
    radii: tuple[Field, Field]
    colour: Field
    present: Field
    long: Field
    covers_ears: Field

    @classmethod
    def style(cls, head: Head, draws: Draws) -> _Hair:
        x, y = head.frame.points
        radii = (
            head.radii[0] + draws.uniform("hair: extra width", 0.04, 0.25),
            head.radii[1] + draws.uniform("hair: extra height", 0.03, 0.2),
        )
        present, long = draws.chance("hair: present", 0.92), draws.chance("hair: long", 0.45)
        mass = ellipse((x, y), centre=(0, -0.08), radii=radii)
        reach = radii[0] * draws.uniform("hair: reach", 0.85, 1.15)
        low = draws.uniform("hair: low", 0.3, 0.8)
        length = draws.uniform("hair: length", 0.5, 0.9)
        locks = box((x, y), centre=(0, low), half=(reach, length), corner=0.25)
        short = np.maximum(mass, y - draws.uniform("hair: nape", -0.2, 0.5))
        strands = (x * draws.uniform("hair: strands", 0.6, 3), y)
        pattern = texture(draws, "hair", strands, waves=(1.5, 7))
        contrast = draws.uniform("hair: contrast", 0.1, 0.45)
        return cls(
            mass=np.where(long > 0, np.minimum(mass, locks), short),
            locks=locks,
            radii=radii,
            colour=shade(head.hair, 1 + contrast * pattern, head.lit),
            present=present,
            long=long,
            covers_ears=present * long * draws.chance("hair: covers ears", 0.3),
        )

    def paint_back(self, head: Head) -> None:
        head.frame.paint(self.mass, self.colour, label=LABEL["hair"], where=self.present)

    def paint_over_shoulders(self, head: Head, draws: Draws) -> None:
        gap = head.radii[0] * draws.uniform("hair: gap", 0.7, 0.95)
        sides = np.maximum(
            self.locks, -box(head.frame.points, centre=(0, 0.6), half=(gap, 2.0), corner=0.1)
        )
        where = self.present * self.long * draws.chance("hair: over shoulders", 0.6)
        head.frame.paint(sides, self.colour, label=LABEL["hair"], where=where)

    def paint_fringe(self, head: Head, draws: Draws) -> None:
        """The cap of hair above a hairline that is a parabola about the parting."""
        x, y = head.frame.points
        parting = draws.uniform("fringe: parting", -0.5, 0.5)
        slope = draws.uniform("fringe: slope", -0.3, 0.9)
        left = draws.uniform("fringe: left share", 0.3, 1)
        line = draws.uniform("fringe: line", -0.75, -0.38)
        line = line + slope * (x - parting) ** 2 * np.where(x > parting, np.float32(1), left)
        cap = np.maximum(ellipse((x, y), centre=(0, -0.08), radii=self.radii), y - line)
        head.frame.paint(cap, self.colour, label=LABEL["hair"], where=self.present)


def _paint_body(head: Head, draws: Draws) -> None:
    """Neck, then clothes with the neckline carved out. The body does not roll with the head."""
    x, y = head.upright.points
    width = draws.uniform("neck: width", 0.26, 0.44)
    follow = 1 - np.clip((y - 0.4) * 0.6, 0, 1)  # the neck's upper end stays below the head
    neck = box((x + 0.5 * follow * np.sin(head.roll), y), centre=(0, 0.95), half=(width, 0.75))
    shadow = 1 - 0.25 * np.clip(1.2 - y, 0, 1)
    neck_colour = shade(head.skin, draws.uniform("neck: shade", 0.6, 0.95), shadow)
    head.upright.paint(neck, neck_colour, label=LABEL["neck"])

    top = draws.uniform("cloth: top", 0.98, 1.22)
    half = draws.uniform("cloth: width", 0.95, 1.6)
    lean = draws.uniform("cloth: lean", -0.15, 0.15)
    shoulders = ellipse((x, y), centre=(lean, top + 1), radii=(half, 1.05))
    chest = box((x, y), centre=(lean, top + 1.2), half=(half, 0.95), corner=0.4)
    neckline = ellipse(
        (x, y),
        centre=(0, top - draws.uniform("neckline: height", 0.1, 0.3)),
        radii=(
            width * draws.uniform("neckline: width", 0.9, 1.6),
            draws.uniform("neckline: depth", 0.25, 0.6),
        ),
    )
    cloth = np.maximum(np.minimum(shoulders, chest), -neckline)
    colour = blend(draws.colour("cloth"), head.skin, amount=draws.chance("cloth: like skin", 0.15))
    pattern = texture(draws, "cloth", (x, y), waves=(1, 5))
    colour = shade(colour, 1 + draws.uniform("cloth: contrast", 0, 0.55) * pattern)
    head.upright.paint(cloth, colour, label=LABEL["cloth"])


def _paint_ears(head: Head, draws: Draws, *, hidden: Field) -> None:
    """Two ears; the far one disappears when the head is turned, both under long hair."""
    width, height = draws.uniform("ear: width", 0.13, 0.2), draws.uniform("ear: height", 0.19, 0.29)
    level = draws.uniform("ear: level", -0.05, 0.15) - 0.06 * head.pitch
    colour = shade(head.skin, draws.uniform("ear: shade", 0.75, 1.05), head.lit)
    for side in (-1, 1):
        visible = (1 - hidden) * (head.yaw * side < 0.75)
        x = side * (head.radii[0] + 0.02) - 0.1 * head.yaw
        outer = ellipse(head.frame.points, centre=(x, level), radii=(width, height))
        ear = head.frame.paint(outer, colour, label=LABEL["ear"], where=visible)
        radii = (0.5 * width, 0.55 * height)
        inner = ellipse(head.frame.points, centre=(x + 0.01 * side, level), radii=radii)
        head.frame.paint(inner, shade(colour, 0.75), where=ear)


def _paint_skull(head: Head, draws: Draws) -> Field:
    """Skin of the face and sometimes a beard; returns the coverage that clips the features."""
    x, y = head.frame.points
    outline = head.outline(draws)
    colour = head.complexion(draws)
    inside = head.frame.paint(outline, colour, label=LABEL["skin"])
    cheeks = (0.9 * head.radii[0], draws.uniform("beard: line", 0.68, 0.86))
    beard = np.maximum(outline, -ellipse((x, y), centre=(0, -0.15), radii=cheeks))
    dark = shade(colour, draws.uniform("beard: shade", 0.45, 0.8))
    head.frame.paint(beard, dark, where=draws.chance("beard", 0.2), softness=0.08)
    return inside


def _paint_hat(head: Head, draws: Draws, *, hair: _Hair) -> None:
    """A crown above a brim."""
    x, y = head.frame.points
    brim = draws.uniform("hat: brim", -0.65, -0.45)
    width = hair.radii[0]
    crown = (1.05 * width, draws.uniform("hat: height", 0.8, 1.2))
    rim = (width * draws.uniform("hat: brim width", 1.05, 1.4), 0.07)
    hat = np.minimum(
        np.maximum(ellipse((x, y), centre=(0, -0.25), radii=crown), y - brim),
        box((x, y), centre=(0, brim), half=rim, corner=0.05),
    )
    pattern = texture(draws, "hat", (x, y), waves=(1, 4))
    contrast = draws.uniform("hat: contrast", 0, 0.4)
    colour = shade(draws.colour("hat"), 1 + contrast * pattern, head.lit)
    head.frame.paint(hat, colour, label=LABEL["hat"], where=draws.chance("hat", 0.12))
