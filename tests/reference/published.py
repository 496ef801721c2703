"""Crops and masks of published data sets, pixel by pixel, from the papers' descriptions."""

from __future__ import annotations

import numpy as np

# order in which CelebAMask-HQ's parts are drawn, 1 first
ASSEMBLY = [
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
]
# LAGM's parts of PASCAL: name of the part -> index
HORSE = {
    1: "head leye reye lear rear muzzle",
    2: "torso",
    3: "lfho rfho lbho rbho lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg",
    4: "neck",
    5: "tail",
}
AEROPLANE = {1: "body", 2: "stern tail", 3: "lwing rwing", 4: "engine_1 engine_7", 5: "wheel_2"}
# the 15 classes of CGPart, by words in the part's name; all else is car body
CGPART = {
    "back_bumper": 1,
    "front_bumper": 4,
    "head_light": 5,
    "tail_light": 10,
    "license_plate": 7,
    "windshield": 14,
    "mirror": 8,
    "door": 3,
    "wheel": 12,
    "window": 13,
    "hood": 6,
    "roof": 9,
    "trunck": 11,
}


def assembled(layers: dict[str, np.ndarray]) -> np.ndarray:
    """Draw parts over one another; ``layers`` are brightnesses by part."""
    shape = next(iter(layers.values())).shape
    labels = np.zeros(shape, dtype=np.uint8)
    for place in np.ndindex(shape):
        for index, part in enumerate(ASSEMBLY, start=1):
            if part in layers and layers[part][place] > 0:
                labels[place] = index
    return labels


def boxes_overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether intersection over union exceeds 0.05; boxes are left, top, right, bottom."""
    common = whole = 0
    for x in range(max(a[2], b[2]) + 1):
        for y in range(max(a[3], b[3]) + 1):
            inside = [box[0] <= x < box[2] and box[1] <= y < box[3] for box in (a, b)]
            common += all(inside)
            whole += any(inside)
    return whole > 0 and common > 0.05 * whole


def square_crop(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Cut the square on the longer side of a box of VOC (from 1, ends included).

    The square is centred on the box, cut off at the border, and what is left is centred on zeros.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box[0] - 1, box[1] - 1, box[2], box[3]
    side = max(right - left, bottom - top)
    start = [(left + right - side) / 2, (top + bottom - side) / 2]
    ends = [start[0] + side, start[1] + side]
    x0, y0 = (int(max(value, 0)) for value in start)
    x1, y1 = int(min(ends[0], width)), int(min(ends[1], height))
    out_side = max(x1 - x0, y1 - y0)
    out = np.zeros((out_side, out_side, *pixels.shape[2:]), dtype=pixels.dtype)
    off_x, off_y = (out_side - (x1 - x0)) // 2, (out_side - (y1 - y0)) // 2
    for y in range(y0, y1):
        for x in range(x0, x1):
            out[y - y0 + off_y, x - x0 + off_x] = pixels[y, x]
    return out
