"""PASCAL-Part: parts of objects in VOC 2010 photographs, cropped to one object as in LAGM.

    Annotations_Part/2008_000008.mat                          masks of objects and parts
    JPEGImages/2008_000008.jpg, Annotations/2008_000008.xml   VOC 2010: images and boxes
    ImageSets/Main/horse_train.txt, horse_val.txt             VOC 2010: image and 1, 0 or -1

The lists' images are cropped box by box. VOC's train list gives, in the order of the crops' names
as text, 180 training crops and the validation split; its val list gives the test split. Parts of
all objects of the category are drawn, later ones over earlier ones, so a crop can show a
neighbour's parts. Boxes in the photographs' own list count as overlapping if their intersection
over union exceeds 0.05 (the paper says "smaller than", the released code discards larger ones).
Needs scipy to read .mat files.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from raysweep.config import ConfigError
from raysweep.data.decoding import PILLOW_ERRORS, Bytes, encode_png
from raysweep.data.merging import LabelSet, palette
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import (
    Converted,
    ImportConfig,
    Item,
    Plan,
    Problem,
    distinct,
    matching,
    needs,
)
from raysweep.data.published.crops import Box, Crop, padded, small_or_crowded, square
from raysweep.data.published.label_sets import PASCAL_TABLES, PartTable, read_part_table
from raysweep.data.published.matlab import read_objects
from raysweep.data.records import Record, Split

LABELLED_CROPS = 180
LEAST_SHARE = 0.01  # of a crop that parts must cover
LEAST_SIDE = {"aeroplane": 50}
OTHER_LEAST_SIDE = 32


class Photograph(NamedTuple):
    """The files of one image of VOC 2010, and whether it is in the train list."""

    image: str
    boxes: str
    parts: str
    trains: bool


def plan(tree: Tree, config: ImportConfig) -> Plan:
    """Decide which boxes become crops; reads every annotation of the category."""
    category, table = _table(config)
    labels = LabelSet(f"pascal_{category}", table.classes, palette(len(table.classes)))
    photographs, problems = _photographs(tree, category)
    left_out = {"boxes that overlap": 0, "boxes too small": 0, "crops with few parts": 0}
    crops: dict[bool, list[Item]] = {True: [], False: []}
    for stem, photograph in photographs.items():
        try:
            for place, crop in _crops(tree, photograph, category, table, left_out):
                files = (photograph.image, photograph.parts, str(crop))
                crops[photograph.trains].append(Item(Record(f"{stem}_{place}", "test"), files))
        except ConfigError as error:
            name, _, reason = str(error).partition(": ")
            problems.append(Problem(name, reason))
    items = [*_placed(crops[True]), *crops[False]]
    needs(tree, items, f"{category} that can be cropped")
    kept, doubled = distinct(items, tree)
    convert = functools.partial(_convert, category=category, table=table)
    name = f"pascal-part-{category}"
    problems += doubled
    return Plan(name, labels, "pascal-part", kept, convert, tuple(problems), left_out)


def _table(config: ImportConfig) -> tuple[str, PartTable]:
    category = config.category
    if category is None:
        raise ConfigError(f"--category not given: {', '.join(PASCAL_TABLES)}, or any with --table")
    if config.table is not None:
        return category, read_part_table(Path(config.table))
    if category not in PASCAL_TABLES:
        raise ConfigError(
            f"--category {category!r}: no paper merges its parts; tables exist for "
            f"{', '.join(PASCAL_TABLES)}, give your own with --table FILE.json"
        )
    return category, PASCAL_TABLES[category]


def _photographs(tree: Tree, category: str) -> tuple[dict[str, Photograph], list[Problem]]:
    """Return the photographs that show the category, in the order of their names as text."""
    folders = [
        {match["stem"]: name for name, match in matching(tree, rf"{folder}/(?P<stem>[^/]+)\.{end}")}
        for folder, end in (
            ("JPEGImages", "jpg"),
            ("Annotations", "xml"),
            ("Annotations_Part", "mat"),
        )
    ]
    needs(tree, folders[2], "Annotations_Part/*.mat (PASCAL-Part)")
    listed = {}
    for split in ("val", "train"):
        lists = matching(tree, rf"ImageSets/Main/{category}_{split}\.txt")
        needs(tree, lists, f"ImageSets/Main/{category}_{split}.txt (VOC 2010)")
        for line in tree.read(lists[0][0]).decode().splitlines():
            stem, _, present = line.strip().partition(" ")
            if present.strip() == "1":
                listed[stem] = split == "train"
    found, problems = {}, []
    for stem in sorted(listed):
        files = [folder.get(stem) for folder in folders]
        if None in files:
            kind = ("image", "box file", "mask")[files.index(None)]
            problems.append(Problem(f"{tree.where}: {stem}", f"listed for {category}, no {kind}"))
            continue
        image, boxes, parts = map(str, files)
        found[stem] = Photograph(image, boxes, parts, listed[stem])
    return found, problems


def _crops(
    tree: Tree, photograph: Photograph, category: str, table: PartTable, left_out: dict[str, int]
) -> list[tuple[int, Crop]]:
    """Return the crops of a photograph with the places of their boxes in its list."""
    boxes = _boxes(tree, photograph.boxes, category)
    labels = _labels(tree, photograph.parts, category, table)
    side = LEAST_SIDE.get(category, OTHER_LEAST_SIDE)
    kept = []
    for place in range(len(boxes)):
        reason = small_or_crowded(boxes, place, least_side=side)
        if reason is not None:
            left_out[reason] += 1
            continue
        crop = square(boxes[place], height=labels.shape[0], width=labels.shape[1])
        if float(np.mean(padded(labels, crop) > 0)) < LEAST_SHARE:
            left_out["crops with few parts"] += 1
            continue
        kept.append((place, crop))
    return kept


def _placed(crops: list[Item]) -> list[Item]:
    """Split the crops of VOC's train list in the order of their names as text."""
    placed = []
    for rank, item in enumerate(sorted(crops, key=lambda item: item.record.id)):
        split: Split = "train" if rank < LABELLED_CROPS else "val"
        record = Record(item.record.id, split, rank if split == "train" else None)
        placed.append(Item(record, item.files))
    return placed


def _convert(tree: Tree, item: Item, *, category: str, table: PartTable) -> Converted:
    """Cut one crop from its photograph and from the parts."""
    image, parts, place = item.files
    crop = Crop.parse(place)
    try:
        with Image.open(io.BytesIO(tree.read(image))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except PILLOW_ERRORS as error:
        raise ConfigError(f"{tree.path(image)}: unreadable or truncated ({error})") from None
    labels = _labels(tree, parts, category, table)
    if pixels.shape[:2] != labels.shape:
        raise ConfigError(
            f"{tree.path(parts)}: masks are {labels.shape[1]} x {labels.shape[0]}, the image is "
            f"{pixels.shape[1]} x {pixels.shape[0]}"
        )
    return Converted(encode_png(padded(pixels, crop)), padded(labels, crop))


def _labels(tree: Tree, name: str, category: str, table: PartTable) -> Bytes:
    """Draw the parts of all objects of the category, ``(height, width)`` uint8."""
    objects = read_objects(tree.read(name), where=tree.path(name))
    labels = np.zeros(objects[0].mask.shape, dtype=np.uint8)
    for thing in objects:
        if thing.category != category:
            continue
        for part, mask in thing.parts:
            index = table.index_of(part)
            if index is None:
                raise ConfigError(
                    f"{tree.path(name)}: part {part!r} of {category} is in no class of "
                    f"{table.source}"
                )
            labels[mask > 0] = index
    return labels


def _boxes(tree: Tree, name: str, category: str) -> list[Box]:
    try:
        root = ElementTree.fromstring(tree.read(name))
        return [
            Box(*(int(float(found.findtext(f"bndbox/{key}", ""))) for key in Box._fields))
            for found in root.iter("object")
            if found.findtext("name") == category
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise ConfigError(f"{tree.path(name)}: not a box file of VOC ({error})") from None
