"""Images and masks by split and size, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from raysweep.config import ConfigError
from raysweep.data.builtin import BuiltinConfig, builtin_info, materialise
from raysweep.data.decoding import Bytes, decode_image, decode_mask, resize_mask
from raysweep.data.folder import read_folder
from raysweep.data.joining import joined
from raysweep.data.parquet import is_parquet, read_parquet
from raysweep.data.published.wanted import instructions
from raysweep.data.records import SPLITS, Column, DatasetInfo, Source, Split
from raysweep.data.render import DOMAINS
from raysweep.data.shots import shot_order, take_shots

__all__ = ["Dataset", "DatasetInfo", "Encoded", "describe", "open_dataset"]


class Encoded(NamedTuple):
    """The original files of one image, at its original size."""

    image: bytes
    mask: bytes | None


class Dataset:
    """A dataset in memory as far as it was asked for.

    Whole splits are decoded once per size and kept as uint8; what the methods return is shared, so
    do not write into it.

    Args:
        source: where the encoded files are.
    """

    def __init__(self, source: Source) -> None:
        self.info = source.info
        self._source = source
        self._decoded: dict[tuple[Column, Split, int], torch.Tensor] = {}
        self._names = {
            split: tuple(sorted(r.id for r in source.records if r.split == split))
            for split in SPLITS
        }

    def names(self, split: Split) -> tuple[str, ...]:
        """Return the ids of a split, sorted as text (DatasetGAN's folds follow this order).

        Raises:
            ConfigError: there is no such split.
        """
        if split not in self._names:
            raise ConfigError(f"split = {split!r}: allowed are {', '.join(SPLITS)}")
        return self._names[split]

    def images(self, split: Split, *, px: int, names: Sequence[str] | None = None) -> torch.Tensor:
        """Return images squeezed to squares with Pillow's antialiased BILINEAR filter.

        Args:
            split: which images.
            px: side in pixels.
            names: ids within the split, in the order wanted; all, in order of :meth:`names`, if
                left out.

        Returns:
            ``(count, 3, px, px)`` uint8 RGB on the CPU.

        Raises:
            ConfigError: a file cannot be decoded, or the split has no such image.
        """
        return self._tensors("image", split, px=px, names=names)

    def masks(self, split: Split, *, px: int, names: Sequence[str] | None = None) -> torch.Tensor:
        """Return masks squeezed to squares, each pixel with the nearest label.

        Args:
            split: ``train``, ``val`` or ``test``.
            px: side in pixels.
            names: as in :meth:`images`.

        Returns:
            ``(count, px, px)`` uint8 labels on the CPU.

        Raises:
            ConfigError: the split has no masks or no such image, or a file cannot be decoded.
        """
        if split == "unlabelled":
            raise ConfigError("split = 'unlabelled' has no masks; allowed are train, val, test")
        return self._tensors("mask", split, px=px, names=names)

    def encoded(self, split: Split, name: str) -> Encoded:
        """Return the original files of one image.

        Raises:
            ConfigError: the split has no such image, or its file cannot be read.
        """
        self._positions(split, [name])
        image = dict(self._source.read("image", [name]))[name]
        mask = None if split == "unlabelled" else dict(self._source.read("mask", [name]))[name]
        return Encoded(image, mask)

    def shots(self, shots: int, draw: int) -> tuple[str, ...]:
        """Return the ids of the labelled training images of one draw; larger sets contain smaller.

        Raises:
            ConfigError: there are fewer training images.
        """
        order = shot_order(self._source.records, draw=draw)
        return take_shots(order, shots, name=self.info.name)

    def pretraining_split(self) -> Split:
        """Return which images pretraining may see.

        These are the unlabelled ones or, where there are none, those that train; never an image
        of the validation or test split.
        """
        return "unlabelled" if self.names("unlabelled") else "train"

    def pretraining_images(self, *, px: int) -> torch.Tensor:
        """Return the images that pretraining may see, ``(count, 3, px, px)`` uint8."""
        return self.images(self.pretraining_split(), px=px)

    def _tensors(
        self, column: Column, split: Split, *, px: int, names: Sequence[str] | None
    ) -> torch.Tensor:
        if px < 1:
            raise ConfigError(f"px = {px}: images are at least 1 pixel wide")
        key = (column, split, px)
        if names is None and key not in self._decoded:
            self._decoded[key] = self._decode(column, self.names(split), px=px)
        if names is None:
            return self._decoded[key]
        positions = self._positions(split, names)
        if key in self._decoded:
            return self._decoded[key][positions]
        return self._decode(column, names, px=px)

    def _positions(self, split: Split, names: Sequence[str]) -> list[int]:
        places = {name: at for at, name in enumerate(self.names(split))}
        for name in names:
            if name not in places:
                raise ConfigError(f"{self.info.name} has no image {name!r} in split {split}")
        return [places[name] for name in names]

    def _decode(self, column: Column, names: Sequence[str], *, px: int) -> torch.Tensor:
        shape = (px, px, 3) if column == "image" else (px, px)
        out = np.empty((len(names), *shape), dtype=np.uint8)
        places = {name: at for at, name in enumerate(names)}
        for name, data in self._source.read(column, names):
            out[places[name]] = self._pixels(column, data, px=px, where=f"{self.info.name}: {name}")
        tensor = torch.from_numpy(out)
        return tensor.permute(0, 3, 1, 2).contiguous() if column == "image" else tensor

    def _pixels(self, column: Column, data: bytes, *, px: int, where: str) -> Bytes:
        if column == "image":
            return decode_image(data, px=px, where=where)
        return resize_mask(decode_mask(data, classes=self.info.classes, where=where), px=px)


def open_dataset(
    source: str,
    *,
    cache: Path,
    builtin: BuiltinConfig | None = None,
    others: Mapping[Split, str] | None = None,
) -> Dataset:
    """Open a dataset.

    Args:
        source: ``face`` or ``car`` (built in), a folder with ``images/``, ``masks/`` and
            ``classes.json``, or a directory or URI of a Parquet dataset.
        cache: where built-in datasets are kept; rendered there if missing.
        builtin: what to render.
        others: splits whose images are another dataset's, see :func:`joined`, to its source.

    Raises:
        ConfigError: nothing of the kind is there, or it cannot be used; names the file.
    """

    def read(place: str) -> Source:
        if place in DOMAINS:
            rendered = materialise(builtin or BuiltinConfig(), place, cache=cache)
            return read_parquet(str(rendered))
        return _stored(place)

    if not others:
        return Dataset(read(source))
    return Dataset(joined(read(source), {split: read(place) for split, place in others.items()}))


def describe(source: str, *, builtin: BuiltinConfig | None = None) -> DatasetInfo:
    """Return what a dataset is, without rendering a built-in one or decoding images.

    A folder is checked file by file, and all of its masks are decoded.

    Args:
        source: as for :func:`open_dataset`.
        builtin: what would be rendered.

    Raises:
        ConfigError: as for :func:`open_dataset`.
    """
    if source in DOMAINS:
        return builtin_info(builtin or BuiltinConfig(), source)
    return _stored(source).info


def _stored(source: str) -> Source:
    told = instructions(source)
    if told is not None:
        raise ConfigError(told)
    if is_parquet(source):
        return read_parquet(source)
    folder = Path(source).expanduser()
    if any((folder / name).exists() for name in ("images", "masks", "classes.json")):
        return read_folder(folder)
    found = "is not a dataset" if folder.exists() else "does not exist"
    raise ConfigError(
        f"data.source = {source!r} {found}; give {' or '.join(DOMAINS)} (built in), a folder with "
        "images/, masks/ and classes.json, or a directory with dataset.json and Parquet files"
    )
