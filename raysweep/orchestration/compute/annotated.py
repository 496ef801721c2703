"""Samples of a generator that a person labelled; made by ``jobs/generate.py --to-label``."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
import torch
from pydantic import Field

from raysweep.config import Config, ConfigError, digest, from_dict
from raysweep.data.decoding import decode_mask, image_size, resize_mask
from raysweep.data.folder import list_images, read_classes
from raysweep.data.records import DatasetInfo, Record
from raysweep.data.shots import shot_order, take_shots

LINEAGE = "generated.json"
CODES = "codes.safetensors"
CLASSES = "classes.json"


class Lineage(Config):
    """Where generated images are from; stored as ``generated.json``.

    Attributes:
        generator: key of the pretrain stage that has the generator.
        seed: of latents and noise.
        psi: truncation.
        count: number of images.
        layout: ``unlabelled`` images, or images ``to_label`` with their codes.
        labelled_by: ``nobody``, a ``person``, or the ``stand-in`` for one on built-in data.
    """

    generator: str
    seed: int = 0
    psi: float = Field(1.0, ge=0, le=1)
    count: int = Field(ge=1)
    layout: Literal["unlabelled", "to_label"] = "unlabelled"
    labelled_by: Literal["nobody", "person", "stand-in"] = "nobody"


def read_lineage(directory: Path) -> Lineage:
    """Return where the images of a directory are from.

    Raises:
        ConfigError: the directory was not made by jobs/generate.py.
    """
    try:
        return from_dict(Lineage, json.loads((directory / LINEAGE).read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{directory}: not a directory made by jobs/generate.py ({error})"
        ) from None


@dataclass(frozen=True)
class Annotations:
    """Generated images that a person labelled; made by :func:`annotations_of`.

    Attributes:
        directory: with images, masks, codes and ``classes.json``.
        names: of the images with a mask, sorted.
        classes: names in index order.
        digest: of codes, masks and classes.
    """

    directory: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    digest: str

    def shots(self, shots: int, draw: int) -> tuple[str, ...]:
        """Return names of one draw; larger sets contain smaller ones.

        Raises:
            ConfigError: fewer images have a mask.
        """
        order = shot_order((Record(name, "train") for name in self.names), draw=draw)
        return take_shots(order, shots, name=str(self.directory))

    def codes(self, names: Sequence[str]) -> torch.Tensor:
        """Return the codes ``(count, length)`` float32 of images."""
        with safetensors.safe_open(str(self.directory / CODES), framework="pt") as file:
            return torch.stack([file.get_tensor(name) for name in names])

    def masks(self, names: Sequence[str], *, px: int, info: DatasetInfo) -> torch.Tensor:
        """Return masks ``(count, px, px)`` uint8, each pixel with the nearest label.

        Raises:
            ConfigError: the classes are not those of the data set that scores the fit.
        """
        if self.classes != info.classes:
            raise ConfigError(
                f"{self.directory / CLASSES}: classes are {', '.join(self.classes)}; {info.name} "
                f"has {', '.join(info.classes)}; name the same ones in the same order"
            )
        return torch.stack([self._mask(name, px=px) for name in names])

    def _mask(self, name: str, *, px: int) -> torch.Tensor:
        place = self.directory / "masks" / f"{name}.png"
        labels = decode_mask(place.read_bytes(), classes=self.classes, where=place)
        return torch.from_numpy(resize_mask(labels, px=px).copy())


def annotations_of(directory: str, *, generator: str) -> Annotations:
    """Return the labelled images of a directory after checking them.

    Args:
        directory: made by ``jobs/generate.py --to-label``.
        generator: key of the pretrain stage whose codes are wanted.

    Raises:
        ConfigError: the images are another generator's, or a file is missing or cannot be used.
    """
    place = Path(directory)
    lineage = read_lineage(place)
    if lineage.layout != "to_label":
        raise ConfigError(
            f"annotated = {directory!r}: made without codes; run jobs/generate.py with --to-label"
        )
    if lineage.generator != generator:
        raise ConfigError(
            f"annotated = {directory!r}: images of generator pretrain/{lineage.generator}, but "
            f"this representation is pretrain/{generator}; label images of that generator, or use "
            "the settings of the one labelled"
        )
    files = (place / CODES, place / CLASSES, *list_images(place / "masks").values())
    for file in files:
        if not file.is_file():
            raise ConfigError(f"annotated = {directory!r}: {file.name} is missing; see README.txt")
    stamps = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    return _checked(place, tuple(stamps))


@functools.lru_cache(maxsize=8)
def _checked(place: Path, _stamps: tuple[tuple[str, int, int], ...]) -> Annotations:
    """Read and check the files once for all experiments that name them."""
    classes = read_classes(place / CLASSES)[1].classes
    masks, images = list_images(place / "masks"), list_images(place / "images")
    if not masks:
        raise ConfigError(f"{place / 'masks'} holds no mask; see {place / 'README.txt'}")
    try:
        with safetensors.safe_open(str(place / CODES), framework="pt") as file:
            known = set(file.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigError(f"{place / CODES} cannot be read: {error}; make it again") from None
    hashes = {}
    for name, mask in masks.items():
        if name not in known or name not in images:
            raise ConfigError(f"{mask} is of no generated image; name it as its image is named")
        _check_size(mask, images[name], classes=classes)
        hashes[name] = _hash_of(mask)
    content = {"codes": _hash_of(place / CODES), "classes": list(classes), "masks": hashes}
    return Annotations(place, tuple(sorted(masks)), classes, digest(content))


def _check_size(mask: Path, image: Path, *, classes: Sequence[str]) -> None:
    height, width = decode_mask(mask.read_bytes(), classes=classes, where=mask).shape
    size = image_size(image.read_bytes(), where=image)
    if (width, height) != size:
        raise ConfigError(
            f"{mask}: mask is {width} x {height}, its image {size[0]} x {size[1]}; save the mask "
            "at the image's size, without smoothing"
        )


def _hash_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
