"""FFHQ: aligned faces in folders of thousands, ``images1024x1024/00000/00000.png``.

All images are unlabelled, as in every paper that pretrains on them (70,000 at 1024 px, or the
thumbnails at 128 px). A folder downloaded without its parent works as well.
"""

from __future__ import annotations

from raysweep.config import ConfigError
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import (
    ImportConfig,
    Item,
    Plan,
    convert_plain,
    distinct,
    matching,
    needs,
)
from raysweep.data.records import Record

PATTERN = r"(?P<folder>\d{5})/(?P<number>\d{5})\.png"


def plan(tree: Tree, config: ImportConfig) -> Plan:
    """List the images; the folder in which a number lies must be the one that it belongs to."""
    found = matching(tree, PATTERN)
    needs(tree, found, "NNNNN/NNNNN.png")
    sizes = sorted({name[: match.start()].strip("/") for name, match in found})
    if len(sizes) > 1:
        raise ConfigError(f"{tree.where} holds {' and '.join(sizes)}; give one of these folders")
    items, misplaced = [], 0
    for name, match in found:
        number = int(match["number"])
        if int(match["folder"]) != number - number % 1000:
            misplaced += 1
            continue
        items.append(Item(Record(match["number"], "unlabelled"), (name,)))
    kept, problems = distinct(items, tree)
    numbers = {int(item.record.id) for item in kept}
    missing = max(numbers, default=-1) + 1 - len(numbers)
    left_out = {"missing numbers": missing, "in the wrong folder": misplaced}
    return Plan("ffhq", None, "ffhq", kept, convert_plain, problems, left_out)
