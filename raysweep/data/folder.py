"""The folder layout: ``images/``, ``masks/``, ``classes.json``, read as they are.

Every mask is decoded once and every image's header read, so that mistakes are named before any
work starts. The README shows the layout; ``unlabelled/`` and ``splits.csv`` are optional. An image
without a mask is unlabelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from raysweep.config import Config, ConfigError, from_dict
from raysweep.data.decoding import IMAGE_SUFFIXES, decode_mask, image_size
from raysweep.data.merging import Colour, LabelSet, palette
from raysweep.data.records import (
    Column,
    DatasetInfo,
    Record,
    Source,
    content_hash,
    counts_of,
    fingerprint,
)
from raysweep.data.splits import read_splits, seeded_splits

EXAMPLE = '{"classes": ["background", "hair", "skin"]}'


class ClassesFile(Config):
    """The content of ``classes.json``.

    Attributes:
        classes: names in index order; pixels of value 0 are the first.
        palette: one RGB colour of 0 to 255 per class; the PASCAL VOC colours if left out.
        licence: of the images.
        flip_pairs: pairs of class indices that trade places when an image is mirrored.
        name: what tables call the dataset; the folder's name if left out.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...] | None = None
    licence: str = "unknown"
    flip_pairs: tuple[tuple[int, int], ...] = ()
    name: str | None = None


class Files(NamedTuple):
    """An image and, if it is labelled, its mask."""

    image: Path
    mask: Path | None


def read_folder(folder: Path) -> Source:
    """Read and check a folder.

    Raises:
        ConfigError: something about it cannot be used; names the file and the remedy.
    """
    classes, labels = read_classes(folder / "classes.json")
    files = _files(folder)
    records = _records(folder, files)
    hashes = [_check(record, files[record.id], classes=labels.classes) for record in records]
    info = DatasetInfo(
        name=labels.name,
        classes=labels.classes,
        palette=labels.palette,
        licence=classes.licence,
        fingerprint=fingerprint(hashes, classes=labels.classes, flip_pairs=labels.flip_pairs),
        counts=counts_of(records),
        flip_pairs=labels.flip_pairs,
    )
    return Source(info, records, lambda column, ids: _read(files, column, ids))


def read_classes(path: Path) -> tuple[ClassesFile, LabelSet]:
    """Read ``classes.json``.

    Raises:
        ConfigError: it is missing, malformed or contradicts itself.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; list the class names in index order: {EXAMPLE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ConfigError(f"holds a {type(content).__name__}, not an object")
        found = from_dict(ClassesFile, content)
        colours = found.palette or palette(len(found.classes))
        if any(not 0 <= value <= 255 for colour in colours for value in colour):
            raise ConfigError("palette holds values outside 0 to 255")
        name = found.name or path.resolve().parent.name
        return found, LabelSet(name, found.classes, colours, found.flip_pairs)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; expected e.g. {EXAMPLE}") from None


def list_images(folder: Path) -> dict[str, Path]:
    """Return the images directly in a folder by stem, in order of name.

    Raises:
        ConfigError: two images differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ConfigError(f"{path}: {found[path.stem].name} has the same name; rename one")
        found[path.stem] = path
    return found


def _files(folder: Path) -> dict[str, Files]:
    images, masks = list_images(folder / "images"), list_images(folder / "masks")
    for stem, mask in masks.items():
        if stem not in images:
            names = ", ".join(f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)
            raise ConfigError(f"{mask} has no image; {folder / 'images'} holds none of {names}")
    if not masks:
        raise ConfigError(
            f"{folder} has no labelled image; put an index PNG of the same name into masks/ for "
            "at least 3 images (to train, to validate, to test)"
        )
    files = {stem: Files(image, masks.get(stem)) for stem, image in images.items()}
    # both folders may count from 1, so the folder is part of these names
    extra = list_images(folder / "unlabelled")
    return files | {f"unlabelled/{stem}": Files(image, None) for stem, image in extra.items()}


def _records(folder: Path, files: Mapping[str, Files]) -> tuple[Record, ...]:
    labelled = [name for name, pair in files.items() if pair.mask]
    table = folder / "splits.csv"
    if table.is_file():
        return read_splits(table, images=list(files), labelled=labelled)
    return seeded_splits(list(files), labelled=labelled, where=folder)


def _check(record: Record, files: Files, *, classes: Sequence[str]) -> str:
    """Return the record's content hash, if its files are in order."""
    image = files.image.read_bytes()
    size = image_size(image, where=files.image)
    if record.split == "unlabelled" or files.mask is None:
        return content_hash(record, image=image, mask=None)
    mask = files.mask.read_bytes()
    height, width = decode_mask(mask, classes=classes, where=files.mask).shape
    if (width, height) != size:
        raise ConfigError(
            f"{files.mask}: mask is {width} x {height}, {files.image.name} is "
            f"{size[0]} x {size[1]}; save the mask at the image's size, without smoothing"
        )
    return content_hash(record, image=image, mask=mask)


def _read(
    files: Mapping[str, Files], column: Column, ids: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    for name in ids:
        path = files[name].image if column == "image" else files[name].mask
        assert path is not None, f"{name} is of a labelled split"
        yield name, path.read_bytes()
