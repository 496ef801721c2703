"""CelebAMask-HQ: 30,000 faces of 1024 px and a PNG of 512 px per visible part.

    CelebA-HQ-img/0.jpg ... 29999.jpg
    CelebAMask-HQ-mask-anno/0/00000_skin.png ...       2,000 images per folder
    CelebA-HQ-to-CelebA-mapping.txt                    columns idx, orig_idx, orig_file

Parts overlap; the official script (face_parsing/Data_preprocessing/g_mask.py) lets later parts
overwrite earlier ones in the order of the class indices, which LAGM repeats. A part that is not
visible has no file.

Splits: ``official`` goes by the number of the photograph in CelebA (below 162771 trains, from
182638 on tests) and ranks training images by their number within the part, since the official
script renumbers them. ``lagm`` goes by image number: 0 to 27499 unlabelled, then 500 that
validate, 1500 that train and 500 that test. LAGM's validation images are also in its unlabelled
range; here an image is in one split, and validating images are never trained on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raysweep.config import ConfigError
from raysweep.data.decoding import Bytes
from raysweep.data.labels import LABEL_SETS
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import (
    Converted,
    ImportConfig,
    Item,
    Plan,
    Problem,
    convert_plain,
    distinct,
    fitted,
    matching,
    needs,
)
from raysweep.data.published.pixels import decode_grey
from raysweep.data.records import Record, Split

LABELS = LABEL_SETS["celebamask19"]
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
FIRST_VAL, FIRST_TEST = 162771, 182638  # numbers of photographs in CelebA
LAGM_STARTS: tuple[tuple[int, Split], ...] = (
    (29500, "test"),
    (28000, "train"),
    (27500, "val"),
    (0, "unlabelled"),
)


def plan(tree: Tree, config: ImportConfig) -> Plan:
    """Pair images with their parts and place them in splits."""
    images = matching(tree, r"CelebA-HQ-img/(?P<number>\d+)\.(?:jpg|jpeg|png)")
    needs(tree, images, "CelebA-HQ-img/NUMBER.jpg")
    parts, problems = _parts(tree)
    records = _records(tree, [int(match["number"]) for _, match in images], config)
    items = []
    for name, match in sorted(images, key=lambda pair: int(pair[1]["number"])):
        number = int(match["number"])
        record, mine = records[number], parts.pop(number, {})
        if record.split == "unlabelled":
            items.append(Item(record, (name,)))
        elif mine:
            ordered = (mine[label] for label in sorted(mine))
            items.append(Item(record, (name, *ordered)))
        else:
            problems.append(Problem(tree.path(name), "no part of it is annotated"))
    for mine in parts.values():
        problems.append(Problem(tree.path(min(mine.values())), "a mask without its image"))
    kept, doubled = distinct(items, tree)
    return Plan("celebamask-hq", LABELS, "celebamask-hq", kept, convert, (*problems, *doubled))


def convert(tree: Tree, item: Item) -> Converted:
    """Assemble the parts of an image."""
    image, *parts = item.files
    if not parts:
        return convert_plain(tree, item)
    layers = [(_label(name), decode_grey(tree.read(name), where=tree.path(name))) for name in parts]
    for name, (_, layer) in zip(parts, layers, strict=True):
        if layer.shape != layers[0][1].shape:
            raise ConfigError(
                f"{tree.path(name)}: part of {layer.shape[1]} x {layer.shape[0]}, others of the "
                f"image are {layers[0][1].shape[1]} x {layers[0][1].shape[0]}"
            )
    return fitted(tree.read(image), assemble(layers), where=tree.path(image))


def assemble(layers: list[tuple[int, Bytes]]) -> Bytes:
    """Return ``(height, width)`` labels; later layers overwrite, anything above 0 counts.

    Args:
        layers: label and ``(height, width)`` uint8 picture of each part, in order.
    """
    labels = np.zeros(layers[0][1].shape, dtype=np.uint8)
    for label, layer in layers:
        labels[layer > 0] = label
    return labels


def _label(name: str) -> int:
    return LABELS.classes.index(name.rsplit("/", 1)[-1].partition("_")[2].removesuffix(".png"))


def _parts(tree: Tree) -> tuple[dict[int, dict[int, str]], list[Problem]]:
    """Return the part files of each image by label."""
    parts: dict[int, dict[int, str]] = {}
    problems = []
    pattern = r"CelebAMask-?HQ-mask-anno/(?:\d+/)?(?P<number>\d+)_(?P<part>\w+)\.png"
    for name, match in matching(tree, pattern):
        mine = parts.setdefault(int(match["number"]), {})
        if match["part"] not in LABELS.classes[1:]:
            reason = f"part {match['part']!r} is none of {', '.join(LABELS.classes[1:])}"
            problems.append(Problem(tree.path(name), reason))
        elif _label(name) in mine:
            reason = f"the same part of the same image as {mine[_label(name)]}"
            problems.append(Problem(tree.path(name), reason))
        else:
            mine[_label(name)] = name
    return {number: mine for number, mine in parts.items() if mine}, problems


def _records(tree: Tree, numbers: list[int], config: ImportConfig) -> Mapping[int, Record]:
    if config.partition == "lagm":
        return {number: _lagm_record(number) for number in numbers}
    originals = _mapping(tree)
    records, ranks = {}, 0
    for number in sorted(set(numbers) | set(originals)):
        if number not in originals:
            raise ConfigError(f"{tree.where}: {MAPPING} does not list image {number}")
        original = originals[number]
        rank = None
        split: Split = "test" if original >= FIRST_TEST else "val"
        if original < FIRST_VAL:
            split, rank, ranks = "train", ranks, ranks + 1
        records[number] = Record(f"{number:05d}", split, rank)
    return records


def _lagm_record(number: int) -> Record:
    start, split = next(pair for pair in LAGM_STARTS if number >= pair[0])
    return Record(f"{number:05d}", split, number - start if split == "train" else None)


def _mapping(tree: Tree) -> dict[int, int]:
    """Return the number in CelebA of each image."""
    found = matching(tree, MAPPING.replace(".", r"\."))
    needs(tree, found, f"{MAPPING}, which the official splits need (or --partition lagm)")
    name = found[0][0]
    numbers = {}
    for line in tree.read(name).decode().splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0].isdecimal() and fields[1].isdecimal():
            numbers[int(fields[0])] = int(fields[1])
    needs(tree, numbers, f"line 'idx orig_idx orig_file' in {name}")
    return numbers
