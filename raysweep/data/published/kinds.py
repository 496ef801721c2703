"""The layouts that can be imported, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raysweep.config import ConfigError
from raysweep.data.decoding import IMAGE_SUFFIXES, decode_mask
from raysweep.data.folder import read_folder
from raysweep.data.merging import LabelSet
from raysweep.data.published import celebamask_hq, cgpart, datasetgan, ffhq, lsun, pascal_part
from raysweep.data.published.archives import Folder, Tree, open_tree
from raysweep.data.published.common import (
    ANY_LABEL,
    Converted,
    ImportConfig,
    Item,
    Plan,
    Problem,
    convert_plain,
)
from raysweep.data.records import Record

Planner = Callable[[Tree, ImportConfig], Plan]


def plan_images(tree: Tree, config: ImportConfig) -> Plan:
    """Every image of a folder, subfolders included; its id is its path without suffix."""
    kept: dict[str, Item] = {}
    problems = []
    for name in tree.names:
        path = Path(name)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        item = Item(Record(path.with_suffix("").as_posix(), "unlabelled"), (name,))
        first = kept.setdefault(item.record.id.casefold(), item)
        if first is not item:
            reason = f"{Path(first.files[0]).name} has the same name; rename one"
            problems.append(Problem(tree.path(name), reason))
    if not kept:
        raise ConfigError(f"{tree.where} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    name = tree.where.resolve().name
    return Plan(name, None, "unknown", tuple(kept.values()), convert_plain, tuple(problems))


def plan_folder(tree: Tree, config: ImportConfig) -> Plan:
    """The folder layout with ``images/``, ``masks/`` and ``classes.json``; checked as a whole."""
    if not isinstance(tree, Folder):
        raise ConfigError(f"{tree.where}: images/, masks/ and classes.json must be in a folder")
    info, records, _ = read_folder(tree.where)
    files = {
        Path(name).with_suffix("").as_posix(): name
        for name in tree.names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    }
    items = []
    for record in records:
        image = files[record.id if record.id in files else f"images/{record.id}"]
        labelled = record.split != "unlabelled"
        items.append(Item(record, (image, files[f"masks/{record.id}"]) if labelled else (image,)))
    return Plan(
        name=info.name,
        labels=LabelSet(info.name, info.classes, info.palette, info.flip_pairs),
        licence=info.licence,
        items=tuple(items),
        convert=_convert_stored,
        fingerprint=None if config.take or config.drop or config.merge else info.fingerprint,
    )


def _convert_stored(tree: Tree, item: Item) -> Converted:
    """Keep image and mask as they are; the folder has been checked."""
    image, *masks = (tree.read(name) for name in item.files)
    if not masks:
        return Converted(image)
    labels = decode_mask(masks[0], classes=ANY_LABEL, where=tree.path(item.files[1]))
    return Converted(image, labels, masks[0])


PLANNERS: dict[str, Planner] = {
    "celebamask-hq": celebamask_hq.plan,
    "datasetgan": datasetgan.plan,
    "pascal-part": pascal_part.plan,
    "cgpart": cgpart.plan,
    "lsun": lsun.plan,
    "ffhq": ffhq.plan,
    "folder": plan_folder,
    "images": plan_images,
}


def open_source(source: Path, config: ImportConfig, *, scratch: Path) -> Tree:
    """Open what is to be imported.

    Args:
        source: folder, archive or, for ``lsun``, database.
        config: names the kind.
        scratch: existing directory for what reading the source needs.

    Raises:
        ConfigError: it cannot be opened.
    """
    if config.kind == "lsun":
        return lsun.open_database(source, config)
    return open_tree(source, scratch=scratch)
