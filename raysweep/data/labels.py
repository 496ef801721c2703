"""Label sets of the built-in images and of the papers, and the merges between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Colour = tuple[int, int, int]
MaskT = TypeVar("MaskT", npt.NDArray[np.uint8], torch.Tensor)

MAX_CLASSES = 256  # masks are uint8


@dataclass(frozen=True)
class LabelSet:
    """The classes of a mask.

    Attributes:
        name: key in ``LABEL_SETS``.
        classes: names in index order; index 0 is the background.
        palette: one RGB colour of 0 to 255 per class.
        flip_pairs: pairs of indices that trade places when an image is mirrored.

    Raises:
        ValueError: classes repeat, colours do not match the classes, or a pair is not a pair.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError(f"classes of {self.name!r} = {self.classes}; give distinct names")
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"palette of {self.name!r} has {len(self.palette)} colours; "
                f"give one for each of the {len(self.classes)} classes"
            )
        paired = [index for pair in self.flip_pairs for index in pair]
        if len(set(paired)) != len(paired) or not set(paired) <= set(range(len(self.classes))):
            raise ValueError(
                f"flip_pairs of {self.name!r} = {self.flip_pairs}; "
                f"each index from 0 to {len(self.classes) - 1} may occur once"
            )


@dataclass(frozen=True)
class Merge:
    """A map from the classes of one label set to those of another.

    Attributes:
        name: key in ``MERGES``.
        source: classes going in.
        target: classes coming out.
        table: the target's index for each index of the source.

    Raises:
        ValueError: the table does not have one valid target for every source class.
    """

    name: str
    source: LabelSet
    target: LabelSet
    table: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.table) != len(self.source.classes):
            raise ValueError(
                f"table of {self.name!r} has {len(self.table)} entries; "
                f"{self.source.name!r} has {len(self.source.classes)} classes"
            )
        wrong = sorted(set(self.table) - set(range(len(self.target.classes))))
        if wrong:
            raise ValueError(
                f"table of {self.name!r} holds {wrong[0]}; classes of {self.target.name!r} are "
                f"0 to {len(self.target.classes) - 1}"
            )


def merge(mask: MaskT, rule: Merge) -> MaskT:
    """Translate a mask to the target's classes.

    Args:
        mask: uint8 labels of the source, any shape, numpy array or tensor on any device.
        rule: which classes become which.

    Returns:
        uint8 labels of the target, of the same shape, type and device.

    Raises:
        ValueError: the mask is not uint8 or holds a label that the source does not have.
    """
    if mask.dtype not in (np.uint8, torch.uint8):
        raise ValueError(f"mask is {mask.dtype}; labels are uint8")
    highest = int(mask.max()) if 0 not in mask.shape else 0
    if highest >= len(rule.table):
        raise ValueError(
            f"mask holds label {highest}; {rule.source.name!r} has labels "
            f"0 to {len(rule.table) - 1}"
        )
    if isinstance(mask, torch.Tensor):
        table = torch.tensor(rule.table, dtype=torch.uint8, device=mask.device)
        return table[mask.long()]
    return np.array(rule.table, dtype=np.uint8)[mask]


def compose(first: Merge, second: Merge) -> Merge:
    """Return the merge that does ``first``, then ``second``.

    Raises:
        ValueError: ``first`` does not end where ``second`` begins.
    """
    if first.target != second.source:
        raise ValueError(
            f"{first.name!r} ends in {first.target.name!r}, but {second.name!r} begins "
            f"with {second.source.name!r}"
        )
    table = tuple(second.table[index] for index in first.table)
    name = _merge_name(first.source, second.target)
    return Merge(name, first.source, second.target, table)


def palette(num_classes: int) -> tuple[Colour, ...]:
    """Return distinct colours, black first: the colour map of the PASCAL VOC development kit.

    The bits of the class index are dealt to red, green and blue in turn, from the top down, so
    colours do not depend on how many classes there are.

    Raises:
        ValueError: not between 1 and 256 classes.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes = {num_classes}; masks hold 1 to {MAX_CLASSES} classes")
    return tuple(
        (_deal(index, channel=0), _deal(index, channel=1), _deal(index, channel=2))
        for index in range(num_classes)
    )


def _deal(index: int, *, channel: int) -> int:
    return sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(3))


def _label_set(name: str, classes: str, *, colours: Mapping[str, Colour] | None = None) -> LabelSet:
    """Build a label set; classes named ``l_...`` and ``r_...`` are mirror images."""
    names = tuple(classes.split())
    pairs = tuple(
        (index, names.index(f"r_{part[2:]}"))
        for index, part in enumerate(names)
        if part.startswith("l_") and f"r_{part[2:]}" in names
    )
    colours_of = tuple(colours[part] for part in names) if colours else palette(len(names))
    return LabelSet(name, names, colours_of, pairs)


def _merge_name(source: LabelSet, target: LabelSet) -> str:
    return f"{source.name}_to_{target.name}"


def _merge(source: LabelSet, target: LabelSet, groups: Mapping[str, str]) -> Merge:
    """Build a merge; ``groups`` lists what joins a target class, other classes keep their name."""
    joined = {part: name for name, parts in groups.items() for part in parts.split()}
    table = tuple(target.classes.index(joined.get(part, part)) for part in source.classes)
    return Merge(_merge_name(source, target), source, target, table)


_FACE_COLOURS: dict[str, Colour] = {
    "background": (0, 0, 0),
    "skin": (230, 180, 140),
    "hair": (110, 60, 20),
    "brow": (0, 160, 0),
    "l_brow": (0, 160, 0),
    "r_brow": (0, 220, 120),
    "eye": (255, 255, 255),
    "l_eye": (255, 255, 255),
    "r_eye": (200, 200, 255),
    "pupil": (0, 0, 255),
    "nose": (255, 120, 0),
    "u_lip": (220, 0, 60),
    "l_lip": (255, 0, 160),
    "mouth": (120, 0, 40),
    "ear": (255, 220, 0),
    "neck": (160, 120, 200),
    "cloth": (60, 100, 160),
    "glasses": (0, 255, 255),
    "hat": (128, 128, 0),
}

# Built-in images. Left and right are the image's; l_lip is the lower lip, as in CelebAMask-HQ.
_FACE17 = _label_set(
    "face17",
    "background skin hair l_brow r_brow l_eye r_eye pupil nose u_lip l_lip mouth ear neck cloth "
    "glasses hat",
    colours=_FACE_COLOURS,
)
_FACE12 = _label_set(
    "face12",
    "background skin hair brow eye pupil nose mouth ear neck cloth glasses",
    colours=_FACE_COLOURS,
)
_CAR16 = _label_set(
    "car16",
    "background body door hood trunk roof window windshield wheel rim headlight taillight bumper "
    "plate mirror handle",
)
_CAR8 = _label_set("car8", "background body door window wheel light bumper plate")

# The eight face classes of the papers, in GanOrCon's order and in LAGM's.
_FACE8 = _label_set("face8", "background skin nose eye brow ear mouth hair", colours=_FACE_COLOURS)
_FACE8_LAGM = _label_set(
    "face8_lagm", "background ear eye brow skin hair mouth nose", colours=_FACE_COLOURS
)

# DatasetGAN, with its spelling; DatasetGAN's 16 cat classes have no names.
_FACE34 = _label_set(
    "face34",
    "background head cheek chin ear ear_helix ear_lobule eye_bottom_lid eyelashes iris pupil "
    "sclera tear_duct eye_top_lid eyebrow forehead frown hair sideburns jaw moustache "
    "inferior_lip oral_comisure superior_lip teeth neck nose ala_of_nose nose_bridge nose_tip "
    "nostril philtrum temple wrinkles",
)
_CAR20 = _label_set(
    "car20",
    "background back_bumper bumper car_body car_lights door fender grilles handles hoods "
    "licensePlate mirror roof running_boards tailLight tire trunk_lids wheelhub window windshield",
)
# Named after what DatasetGAN's merge puts where. The list of twelve names printed beside that
# merge has another order (tail light 3, plate 4, ...) and contradicts it.
_CAR12 = _label_set(
    "car12",
    "background car_body car_lights licensePlate mirror tailLight tire window windshield door "
    "handles wheelhub",
)

# CelebAMask-HQ, and the ten classes of GanOrCon's appendix A.
_CELEBAMASK19 = _label_set(
    "celebamask19",
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat "
    "ear_r neck_l neck cloth",
)
_CELEBAMASK10 = _label_set(
    "celebamask10", "background skin nose eye brow ear mouth hair neck cloth", colours=_FACE_COLOURS
)

LABEL_SETS: dict[str, LabelSet] = {
    "face17": _FACE17,
    "face12": _FACE12,
    "face8": _FACE8,
    "face8_lagm": _FACE8_LAGM,
    "car16": _CAR16,
    "car8": _CAR8,
    "face34": _FACE34,
    "car20": _CAR20,
    "car12": _CAR12,
    "celebamask19": _CELEBAMASK19,
    "celebamask10": _CELEBAMASK10,
}

_FACE17_TO_12 = _merge(
    _FACE17,
    _FACE12,
    {"background": "hat", "brow": "l_brow r_brow", "eye": "l_eye r_eye", "mouth": "u_lip l_lip"},
)
_FACE12_TO_8 = _merge(
    _FACE12, _FACE8, {"background": "neck cloth", "eye": "pupil", "skin": "glasses"}
)
_CAR16_TO_8 = _merge(
    _CAR16,
    _CAR8,
    {
        "body": "hood trunk roof mirror",
        "door": "handle",
        "window": "windshield",
        "wheel": "rim",
        "light": "headlight taillight",
    },
)
# LAGM's released grouping; GanOrCon reports the same eight classes without printing a table.
_FACE34_GROUPS = {
    "background": "neck",
    "ear": "ear_helix ear_lobule",
    "eye": "eye_bottom_lid eyelashes iris pupil sclera tear_duct eye_top_lid",
    "brow": "eyebrow",
    "hair": "sideburns",
    "mouth": "inferior_lip oral_comisure superior_lip teeth",
    "nose": "ala_of_nose nose_bridge nose_tip nostril",
    "skin": "head cheek chin forehead frown jaw moustache philtrum temple wrinkles",
}
# GanOrCon does not say where eye_g (glasses) goes: skin as in LAGM; ReGAN has background.
_CELEBAMASK_GROUPS = {
    "background": "hat ear_r neck_l",
    "skin": "eye_g",
    "eye": "l_eye r_eye",
    "brow": "l_brow r_brow",
    "ear": "l_ear r_ear",
    "mouth": "u_lip l_lip",
}
_CELEBAMASK19_TO_10 = _merge(_CELEBAMASK19, _CELEBAMASK10, _CELEBAMASK_GROUPS)
_CELEBAMASK10_TO_8 = _merge(_CELEBAMASK10, _FACE8, {"background": "neck cloth"})
_CELEBAMASK19_TO_LAGM = _merge(
    _CELEBAMASK19, _FACE8_LAGM, _CELEBAMASK_GROUPS | {"background": "hat ear_r neck_l neck cloth"}
)
_CAR20_TO_12 = _merge(
    _CAR20,
    _CAR12,
    {"car_body": "back_bumper bumper fender grilles hoods roof running_boards trunk_lids"},
)

MERGES: dict[str, Merge] = {
    "face17_to_face12": _FACE17_TO_12,
    "face12_to_face8": _FACE12_TO_8,
    "face17_to_face8": compose(_FACE17_TO_12, _FACE12_TO_8),
    "car16_to_car8": _CAR16_TO_8,
    "face34_to_face8": _merge(_FACE34, _FACE8, _FACE34_GROUPS),
    "face34_to_face8_lagm": _merge(_FACE34, _FACE8_LAGM, _FACE34_GROUPS),
    "car20_to_car12": _CAR20_TO_12,
    "celebamask19_to_celebamask10": _CELEBAMASK19_TO_10,
    "celebamask10_to_face8": _CELEBAMASK10_TO_8,
    "celebamask19_to_face8": compose(_CELEBAMASK19_TO_10, _CELEBAMASK10_TO_8),
    "celebamask19_to_face8_lagm": _CELEBAMASK19_TO_LAGM,
}
