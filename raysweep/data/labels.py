"""Label sets of the built-in images and of the papers, and the merges between them."""

from __future__ import annotations

from collections.abc import Mapping

from raysweep.data.merging import Colour, LabelSet, Merge, compose, merge, merge_name, palette

__all__ = ["LABEL_SETS", "MERGES", "LabelSet", "Merge", "compose", "merge", "palette"]


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


def _merge(source: LabelSet, target: LabelSet, groups: Mapping[str, str]) -> Merge:
    """Build a merge; ``groups`` lists what joins a target class, other classes keep their name."""
    joined = {part: name for name, parts in groups.items() for part in parts.split()}
    table = tuple(target.classes.index(joined.get(part, part)) for part in source.classes)
    return Merge(merge_name(source, target), source, target, table)


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
