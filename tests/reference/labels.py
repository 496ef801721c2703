"""Merges as the papers print them, index by index, and a merge that loops over pixels."""

from __future__ import annotations

import numpy as np

# target index -> source indices; what is not listed goes to REST
FACE34_LAGM = {
    1: [4, 5, 6],
    2: [7, 8, 9, 10, 11, 12, 13],
    3: [14],
    5: [17, 18],
    6: [21, 22, 23, 24],
    7: [26, 27, 28, 29, 30],
    0: [0, 25],
}
# DatasetGAN's car merge: source index -> target index
CAR20 = {0: 0, 4: 2, 14: 5, 10: 3, 19: 8, 15: 6, 5: 9, 8: 10, 17: 11, 18: 7, 11: 4}
# CelebAMask-HQ in LAGM's eight classes, in LAGM's order
CELEBAMASK_LAGM = {
    0: [0, 14, 15, 16, 17, 18],
    1: [8, 9],
    2: [4, 5],
    3: [6, 7],
    4: [1, 3],
    5: [13],
    6: [10, 11, 12],
    7: [2],
}
CELEBAMASK10 = {
    0: [0, 14, 15, 16],
    1: [1, 3],
    2: [2],
    3: [4, 5],
    4: [6, 7],
    5: [8, 9],
    6: [10, 11, 12],
    7: [13],
    8: [17],
    9: [18],
}
# fine face classes of the built-in images: name -> name of the 12-class protocol
FACE12 = {
    "background": "background",
    "skin": "skin",
    "hair": "hair",
    "l_brow": "brow",
    "r_brow": "brow",
    "l_eye": "eye",
    "r_eye": "eye",
    "pupil": "pupil",
    "nose": "nose",
    "u_lip": "mouth",
    "l_lip": "mouth",
    "mouth": "mouth",
    "ear": "ear",
    "neck": "neck",
    "cloth": "cloth",
    "glasses": "glasses",
    "hat": "background",
}


def target_of(label: int, *, groups: dict[int, list[int]], rest: int) -> int:
    for target, sources in groups.items():
        if label in sources:
            return target
    return rest


def merge_pixels(mask: np.ndarray, *, groups: dict[int, list[int]], rest: int = 0) -> np.ndarray:
    merged = np.zeros_like(mask)
    for place in np.ndindex(mask.shape):
        merged[place] = target_of(int(mask[place]), groups=groups, rest=rest)
    return merged
