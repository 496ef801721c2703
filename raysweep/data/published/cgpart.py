"""CGPart: rendered cars with 31 parts to train on, photographs to test on.

    image/MODEL/*.png and seg/MODEL/*.png                     rendered; MODEL is a ShapeNet id
    Images/car_imagenet_cropped/*.JPEG                        photographs
    Annotations_png/car_imagenet_cropped/*.png
    Image_sets/car_imagenet_val.txt                           names without suffix

As in LAGM, 1000 renderings of four models (minivan, suv, sedan, wagon) train and the photographs
of the val list test; which renderings were drawn is not published, so ours are a seeded draw. A
train list of photographs, if there is one, validates. Masks are palette PNGs.
"""

from __future__ import annotations

from raysweep.data.published.archives import Tree
from raysweep.data.published.common import (
    ImportConfig,
    Item,
    Plan,
    Problem,
    convert_pair,
    distinct,
    drawn,
    matching,
    needs,
)
from raysweep.data.published.label_sets import CGPART_CAR32
from raysweep.data.records import Record, Split

MODELS = {
    "4ef6af15bcc78650bedced414fad522f": "minivan",
    "473dd606c5ef340638805e546aa28d99": "suv",
    "6710c87e34056a29aa69dfdc5532bb13": "sedan",
    "bad0a52f07afc2319ed410a010efa019": "wagon",
}
DRAWN = 1000
LISTS: dict[Split, str] = {"val": "train", "test": "val"}  # our split: list of photographs


def plan(tree: Tree, config: ImportConfig) -> Plan:
    """Pair renderings and photographs with their masks."""
    rendered, problems = _rendered(tree)
    needs(tree, rendered, f"image/MODEL/*.png of the models {', '.join(MODELS.values())}")
    take = config.take if "train" in config.take else {**config.take, "train": DRAWN}
    items = list(drawn(rendered, config.model_copy(update={"take": take, "drop": ()})))
    for split, listed in LISTS.items():
        found, wrong = _photographs(tree, split, listed)
        items += found
        problems += wrong
    kept, doubled = distinct(items, tree)
    trained = sum(item.record.split == "train" for item in kept)
    left_out = {"renderings that were not drawn": len(rendered) - trained}
    labels = CGPART_CAR32
    return Plan("cgpart-car", labels, "cgpart", kept, convert_pair, (*problems, *doubled), left_out)


def _rendered(tree: Tree) -> tuple[list[Item], list[Problem]]:
    masks = {
        (match["model"], match["stem"]): name
        for name, match in matching(tree, r"seg/(?P<model>[0-9a-f]+)/(?P<stem>[^/]+)\.png")
    }
    items, problems = [], []
    for name, match in matching(tree, r"image/(?P<model>[0-9a-f]+)/(?P<stem>[^/]+)\.png"):
        if match["model"] not in MODELS:
            continue
        mask = masks.get((match["model"], match["stem"]))
        if mask is None:
            problems.append(Problem(tree.path(name), "has no mask"))
            continue
        record = Record(f"{MODELS[match['model']]}/{match['stem']}", "train")
        items.append(Item(record, (name, mask)))
    return items, problems


def _photographs(tree: Tree, split: Split, listed: str) -> tuple[list[Item], list[Problem]]:
    lists = matching(tree, rf"Image_sets/car_imagenet_{listed}\.txt")
    if not lists:
        return [], []
    images, masks = (
        {match["stem"]: name for name, match in matching(tree, rf"{folder}/(?P<stem>[^/]+)\.{end}")}
        for folder, end in (
            ("Images/car_imagenet_cropped", "(?i:jpeg|jpg)"),
            ("Annotations_png/car_imagenet_cropped", "png"),
        )
    )
    items, problems = [], []
    for stem in tree.read(lists[0][0]).decode().split():
        if stem not in images or stem not in masks:
            what = "image" if stem not in images else "mask"
            problems.append(Problem(tree.path(lists[0][0]), f"lists {stem}, which has no {what}"))
            continue
        items.append(Item(Record(f"real/{stem}", split), (images[stem], masks[stem])))
    return items, problems
