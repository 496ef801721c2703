"""Label sets of the published data, the merges that apply to them, and where each is from."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path

from raysweep.config import Config, ConfigError, from_dict
from raysweep.data.labels import LABEL_SETS, MERGES
from raysweep.data.merging import LabelSet, Merge, merge_name, palette

SIDES = (("left_", "right_"), ("_left", "_right"))


def _label_set(name: str, classes: str) -> LabelSet:
    """Build a label set; classes that differ in left and right alone are mirror images."""
    names = tuple(classes.split())
    pairs = []
    for index, part in enumerate(names):
        for left, right in SIDES:
            other = part.replace(left, right)
            if left in part and other in names and other != part:
                pairs.append((index, names.index(other)))
                break
    return LabelSet(name, names, palette(len(names)), tuple(pairs))


def _merge(source: LabelSet, target: LabelSet, groups: Mapping[str, str], rest: str) -> Merge:
    """Build a merge; what ``groups`` does not list keeps its name or joins ``rest``."""
    joined = {part: name for name, parts in groups.items() for part in parts.split()}
    names = [joined.get(part, part) for part in source.classes]
    known = target.classes
    table = tuple(known.index(name if name in known else rest) for name in names)
    return Merge(merge_name(source, target), source, target, table)


CAT16 = _label_set("cat16", "background " + " ".join(f"part_{index}" for index in range(1, 16)))
# "trunck" is the data set's spelling
CGPART_CAR32 = _label_set(
    "cgpart_car32",
    "background back_bumper back_left_door back_left_wheel back_left_window back_license_plate "
    "back_right_door back_right_wheel back_right_window back_windshield front_bumper "
    "front_left_door front_left_wheel front_left_window front_license_plate front_right_door "
    "front_right_wheel front_right_window front_windshield hood left_frame left_head_light "
    "left_mirror left_quarter_window left_tail_light right_frame right_head_light right_mirror "
    "right_quarter_window right_tail_light roof trunck",
)
CGPART_CAR15 = _label_set(
    "cgpart_car15",
    "background back_bumper car_body door front_bumper head_light hood licence_plate mirror roof "
    "tail_light trunck wheel window windshield",
)
CGPART_CAR10 = _label_set(
    "cgpart_car10",
    "background car_body door head_light licence_plate mirror tail_light wheel window windshield",
)
_CGPART_CAR_GROUPS = {
    "door": "back_left_door back_right_door front_left_door front_right_door",
    "wheel": "back_left_wheel back_right_wheel front_left_wheel front_right_wheel",
    "window": "back_left_window back_right_window front_left_window front_right_window "
    "left_quarter_window right_quarter_window",
    "windshield": "back_windshield front_windshield",
    "licence_plate": "back_license_plate front_license_plate",
    "head_light": "left_head_light right_head_light",
    "tail_light": "left_tail_light right_tail_light",
    "mirror": "left_mirror right_mirror",
}

PUBLISHED_SETS: dict[str, LabelSet] = LABEL_SETS | {
    labels.name: labels for labels in (CAT16, CGPART_CAR32, CGPART_CAR15, CGPART_CAR10)
}
PUBLISHED_MERGES: dict[str, Merge] = MERGES | {
    rule.name: rule
    for rule in (
        _merge(CGPART_CAR32, CGPART_CAR15, _CGPART_CAR_GROUPS, "car_body"),
        _merge(CGPART_CAR32, CGPART_CAR10, _CGPART_CAR_GROUPS, "car_body"),
    )
}
MERGE_SOURCES: dict[str, str] = {
    "face34_to_face8": "groups of LAGM's released code in GanOrCon's order; GanOrCon prints none",
    "face34_to_face8_lagm": "LAGM, released code, utils/data_util.py",
    "car20_to_car12": "DatasetGAN, released code, utils/data_util.py (the merge, not its names)",
    "celebamask19_to_celebamask10": "GanOrCon, appendix A; eye_g to skin as in LAGM",
    "celebamask10_to_face8": "GanOrCon, appendix A",
    "celebamask19_to_face8": "GanOrCon, appendix A; eye_g to skin as in LAGM",
    "celebamask19_to_face8_lagm": "LAGM, released code, utils/data_util.py",
    "cgpart_car32_to_cgpart_car15": "LAGM, released code, 15 classes of its table",
    "cgpart_car32_to_cgpart_car10": "LAGM, released code, 10 classes",
}


def find_merge(source: LabelSet, name: str) -> Merge:
    """Return the merge from ``source`` that is called ``name`` or leads to the set ``name``.

    Raises:
        ConfigError: there is none; lists those that exist.
    """
    fitting = {r.target.name: r for r in PUBLISHED_MERGES.values() if r.source == source}
    for target, rule in fitting.items():
        if name in (target, rule.name):
            return rule
    known = ", ".join(fitting) or "none"
    raise ConfigError(f"merge = {name!r}: {source.name} merges to {known}")


class PartTable(Config):
    """Which parts of an object become which class; JSON, for classes that no paper merges.

    Attributes:
        classes: names in index order, background first.
        parts: name of a part, or a pattern such as ``engine_*``, to the class that it joins.
        source: who made the table.
    """

    classes: tuple[str, ...]
    parts: dict[str, str]
    source: str = "own table"

    def index_of(self, part: str) -> int | None:
        """Return the class of a part; None if the table does not know it."""
        for pattern, name in self.parts.items():
            if fnmatch.fnmatchcase(part, pattern):
                return self.classes.index(name)
        return None

    def checked(self) -> PartTable:
        """Return itself.

        Raises:
            ConfigError: a part joins a class that is not listed.
        """
        for part, name in self.parts.items():
            if name not in self.classes:
                raise ConfigError(f"parts.{part} = {name!r}: classes are {', '.join(self.classes)}")
        return self


_LAGM_TABLE = "LAGM, released code, utils/pascal_part_tool.py"
_HORSE_LEGS = [f"{side}{part}" for side in ("lf", "rf", "lb", "rb") for part in ("uleg", "lleg")]
PASCAL_TABLES: dict[str, PartTable] = {
    "horse": PartTable(
        classes=("background", "head", "torso", "legs", "neck", "tail"),
        parts=dict.fromkeys(("head", "leye", "reye", "lear", "rear", "muzzle"), "head")
        | dict.fromkeys((*_HORSE_LEGS, "lfho", "rfho", "lbho", "rbho"), "legs")
        | {"torso": "torso", "neck": "neck", "tail": "tail"},
        source=_LAGM_TABLE,
    ),
    "aeroplane": PartTable(
        classes=("background", "body", "stern", "wing", "engine", "wheel"),
        parts={"body": "body", "stern": "stern", "tail": "stern", "lwing": "wing"}
        | {"rwing": "wing", "engine_*": "engine", "wheel_*": "wheel"},
        source=_LAGM_TABLE,
    ),
}


def read_part_table(path: Path) -> PartTable:
    """Read a table of parts from a JSON file.

    Raises:
        ConfigError: it cannot be read or contradicts itself.
    """
    try:
        return from_dict(PartTable, json.loads(path.read_text(encoding="utf-8"))).checked()
    except (OSError, ValueError) as error:
        example = '{"classes": ["background", "head"], "parts": {"head": "head", "leye": "head"}}'
        raise ConfigError(f"{path}: {error}; expected e.g. {example}") from None
