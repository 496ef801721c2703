"""DatasetGAN's annotations: faces in 34 classes, cars in 20, cats in 16.

    training_data/face_processed/image_0.jpg, image_mask0.npy, ...
    testing_data/face_34_class/face_0.png, image_mask0.npy, ...

Images and masks are paired by the number at the end of their names. Training images are ranked by
that number, which is the order in which DatasetGAN takes the first 16. Test images keep their
names as ids, so that the folds follow the order of the names as text: face_0, face_1, face_10,
face_11, ..., face_19, face_2. There is no validation split: the folds choose the checkpoint.

GanOrCon leaves out two of the 30 cats as badly annotated, without saying which (``drop``).
"""

from __future__ import annotations

import re

from raysweep.data.labels import LABEL_SETS
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import (
    Converted,
    ImportConfig,
    Item,
    Plan,
    Problem,
    category_of,
    distinct,
    fitted,
    matching,
    needs,
)
from raysweep.data.published.label_sets import CAT16
from raysweep.data.published.pixels import decode_npy
from raysweep.data.records import Record, Split

LABELS = {"face": LABEL_SETS["face34"], "car": LABEL_SETS["car20"], "cat": CAT16}
NUMBER = re.compile(r"(\d+)$")


def plan(tree: Tree, config: ImportConfig) -> Plan:
    """Pair images with masks in both folders of the category."""
    category = category_of(config, LABELS)
    labels = LABELS[category]
    folders: dict[Split, str] = {
        "train": rf"training_data/{category}_processed",
        "test": rf"testing_data/{category}_{len(labels.classes)}_class",
    }
    items: list[Item] = []
    problems: list[Problem] = []
    for split, folder in folders.items():
        found, wrong = _pairs(tree, folder, split)
        items += found
        problems += wrong
    needs(tree, items, f"{' or '.join(folders.values())} with images and masks")
    kept, doubled = distinct(items, tree)
    name = f"datasetgan-{labels.name}"
    return Plan(name, labels, "datasetgan", kept, convert, (*problems, *doubled))


def convert(tree: Tree, item: Item) -> Converted:
    """Decode the labels of an image; grey images stay grey until they are read."""
    image, mask = item.files
    labels = decode_npy(tree.read(mask), where=tree.path(mask))
    return fitted(tree.read(image), labels, where=tree.path(image))


def _pairs(tree: Tree, folder: str, split: Split) -> tuple[list[Item], list[Problem]]:
    images = matching(tree, rf"{folder}/(?P<stem>[^/]+)\.(?i:png|jpg|jpeg)")
    masks: dict[int, str] = {}
    problems = []
    for name, match in matching(tree, rf"{folder}/(?P<stem>[^/]*mask[^/]*)\.npy"):
        number = _number(match)
        if number in masks:
            problems.append(Problem(tree.path(name), f"same number as {masks[number]}"))
        masks.setdefault(number, name)
    items = []
    used = set()
    for name, match in sorted(images, key=lambda pair: (_number(pair[1]), pair[0])):
        number = _number(match)
        used.add(number)
        if number not in masks:
            problems.append(Problem(tree.path(name), "has no mask"))
            continue
        rank = number if split == "train" else None
        items.append(Item(Record(f"{split}/{match['stem']}", split, rank), (name, masks[number])))
    problems += [
        Problem(tree.path(name), "a mask without its image")
        for number, name in sorted(masks.items())
        if number not in used
    ]
    return items, problems


def _number(match: re.Match[str]) -> int:
    found = NUMBER.search(match["stem"])
    return int(found[1]) if found else -1
