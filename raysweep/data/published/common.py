"""What an importer of a published data set returns, and what several of them need."""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from raysweep import rng
from raysweep.config import Config, ConfigError
from raysweep.data.decoding import ORIENTATION, PILLOW_ERRORS, Bytes, decode_mask, image_size
from raysweep.data.merging import LabelSet
from raysweep.data.published.archives import Tree
from raysweep.data.records import Record, Split

ANY_LABEL = tuple(str(index) for index in range(256))


class ImportConfig(Config):
    """How a published data set becomes one of ours.

    Attributes:
        kind: which layout the source has.
        category: which object, for data sets of several (datasetgan, pascal-part, cgpart).
        partition: whose splits: the data set's own or LAGM's (celebamask-hq).
        merge: label set to merge to; as published if left out.
        table: JSON file of parts and classes (pascal-part).
        take: at most so many images of a split, a seeded draw.
        drop: ids to leave out.
        seed: of the draws.
        on_error: stop at the first file that cannot be used, or skip and count such files.
        verify: check images by their header and ending, or decode them.
    """

    kind: str
    category: str | None = None
    partition: Literal["official", "lagm"] = "official"
    merge: str | None = None
    table: str | None = None
    take: dict[Split, int] = {}
    drop: tuple[str, ...] = ()
    seed: int = Field(0, ge=0)
    on_error: Literal["stop", "skip"] = "stop"
    verify: Literal["ends", "decode"] = "ends"

    @field_validator("take")
    @classmethod
    def _at_least_one(cls, take: dict[Split, int]) -> dict[Split, int]:
        for split, count in take.items():
            if count < 1:
                raise ConfigError(f"{split}={count}; take 1 or more images, or leave it out")
        return take


class Item(NamedTuple):
    """One image to be imported: its place, and the files that it is made from."""

    record: Record
    files: tuple[str, ...]


class Converted(NamedTuple):
    """An image as it will be stored.

    Attributes:
        image: encoded; the published bytes wherever possible.
        labels: ``(height, width)`` uint8 before any merge; None if it has none.
        mask: index PNG of the labels, if it is to be stored as it is.
    """

    image: bytes
    labels: Bytes | None = None
    mask: bytes | None = None


class Problem(NamedTuple):
    """Something about the source that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What an import will write.

    Attributes:
        name: what tables call the data set.
        labels: classes of the labels that ``convert`` returns; None if nothing is labelled.
        licence: key in ``raysweep.licences.TERMS``; any other text is taken as the licence.
        items: one per image.
        convert: reads and decodes an item; must pickle. Raises ConfigError.
        problems: what the listing alone shows to be wrong.
        left_out: images that the published recipe leaves out, by reason.
        fingerprint: of the data set that must result; None if it is not known before.
    """

    name: str
    labels: LabelSet | None
    licence: str
    items: tuple[Item, ...]
    convert: Callable[[Tree, Item], Converted]
    problems: tuple[Problem, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    fingerprint: str | None = None


def convert_plain(tree: Tree, item: Item) -> Converted:
    """Convert an image without labels: its bytes as they are."""
    (name,) = item.files
    data = tree.read(name)
    image_size(data, where=tree.path(name))
    return Converted(data)


def convert_pair(tree: Tree, item: Item) -> Converted:
    """Convert an image and an index PNG; without a second file, an image alone."""
    if len(item.files) == 1:
        return convert_plain(tree, item)
    image, mask = item.files
    labels = decode_mask(tree.read(mask), classes=ANY_LABEL, where=tree.path(mask))
    return fitted(tree.read(image), labels, where=tree.path(image))


def fitted(data: bytes, labels: Bytes, *, where: str) -> Converted:
    """Return an image whose picture, as displayed, has the shape of its labels.

    The released codes ignore the camera's orientation tag, so labels are taken to belong to the
    pixels as stored, unless their shape shows otherwise; such an image is stored without its tag.
    Labels may be smaller or larger than the image (CelebAMask-HQ: 512 against 1024 px).

    Raises:
        ConfigError: the image is unreadable, or its sides have another proportion.
    """
    shown = image_size(data, where=where)
    height, width = labels.shape
    try:
        with Image.open(io.BytesIO(data)) as image:
            stored, turn = image.size, image.getexif().get(ORIENTATION, 1)
            if turn != 1 and _proportional(stored, (width, height)):
                return Converted(_without_tag(image), labels)
    except PILLOW_ERRORS as error:
        raise ConfigError(f"{where}: unreadable or truncated ({error})") from None
    if not _proportional(shown, (width, height)):
        raise ConfigError(
            f"{where}: image is {shown[0]} x {shown[1]}, its mask {width} x {height}; the "
            "proportions of the sides differ"
        )
    return Converted(data, labels)


def _without_tag(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    pixels = image.convert("RGB") if image.mode not in ("L", "RGB") else image
    Image.fromarray(np.asarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _proportional(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is the other times a factor, up to a pixel of rounding."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def distinct(items: Iterable[Item], tree: Tree) -> tuple[tuple[Item, ...], tuple[Problem, ...]]:
    """Set aside items whose id another has already, also if it differs only in case."""
    kept: dict[str, Item] = {}
    problems = []
    for item in items:
        first = kept.setdefault(item.record.id.casefold(), item)
        if first is not item:
            name, other = tree.path(item.files[0]), first.files[0]
            problems.append(Problem(name, f"has the same name as {other}, case aside"))
    return tuple(kept.values()), tuple(problems)


def matching(tree: Tree, pattern: str) -> list[tuple[str, re.Match[str]]]:
    """Return the names that end in ``pattern``, a regular expression that begins a component."""
    compiled = re.compile(rf"(?:^|/){pattern}$")
    found = ((name, compiled.search(name)) for name in tree.names)
    return [(name, match) for name, match in found if match]


def needs(tree: Tree, found: object, what: str) -> None:
    """Refuse a source in which nothing was found.

    Raises:
        ConfigError: ``found`` is empty.
    """
    if not found:
        raise ConfigError(f"{tree.where} holds no {what}; is this the right download?")


def refusal(problems: Iterable[Problem]) -> str:
    """Return the message that refuses a source; the first ten problems are named."""
    every = list(problems)
    if len(every) == 1:
        return str(every[0])
    shown = "\n".join(f"  {problem}" for problem in every[:10])
    more = f"\n  and {len(every) - 10} more" if len(every) > 10 else ""
    return f"{len(every)} files cannot be used:\n{shown}{more}"


def optional(module: str, *, reads: str) -> Any:
    """Import a package that only some data sets need.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"reading {reads} needs the package {module.partition('.')[0]}; "
            "pip install 'raysweep[published]'"
        ) from None


def category_of(config: ImportConfig, allowed: Iterable[str]) -> str:
    """Return the category asked for.

    Raises:
        ConfigError: it is none of ``allowed``.
    """
    names = tuple(allowed)
    if config.category not in names:
        given = "not given" if config.category is None else repr(config.category)
        raise ConfigError(f"--category {given}: {config.kind} has {', '.join(names)}")
    return str(config.category)


def drawn(items: Iterable[Item], config: ImportConfig) -> tuple[Item, ...]:
    """Apply ``drop`` and ``take``; the draw depends on the ids and the seed alone.

    Raises:
        ConfigError: an id to drop does not exist.
    """
    every = tuple(items)
    unknown = set(config.drop) - {item.record.id for item in every}
    if unknown:
        example = every[0].record.id if every else "none"
        raise ConfigError(f"--drop {min(unknown)!r}: no image is called so; one is {example!r}")
    kept = [item for item in every if item.record.id not in config.drop]
    for split, count in config.take.items():
        inside = [item.record.id for item in kept if item.record.split == split]
        order = sorted(inside, key=lambda name: rng.derive(config.seed, "take", name))
        left = set(order[:count])
        kept = [item for item in kept if item.record.split != split or item.record.id in left]
    return tuple(kept)
