"""Rows of pseudo-label shards: columns, reading them group by group, decoding and checking one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps

from raysweep.data.decoding import PILLOW_ERRORS, Bytes, decode_mask, image_size
from raysweep.distill.soft import unpack_soft

SCHEMA_VERSION = 1
VERSION_KEY = b"raysweep.schema_version"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("mask", pa.binary(), nullable=False),
        pa.field("uncertainty", pa.float32(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("soft", pa.binary()),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
LABELS = tuple(str(label) for label in range(256))  # what a byte can hold


class ShardError(ValueError):
    """A shard that cannot be used; the message names file, row group and row."""


class ShardRow(NamedTuple):
    """One pseudo-labelled image.

    Attributes:
        id: of the image.
        image: PNG or JPEG file.
        mask: PNG file of one 8-bit channel; its values are labels.
        uncertainty: of the teacher about this image, not negative.
        teacher: key of the model that made the mask.
        soft: soft labels of :func:`raysweep.distill.soft.encode_soft`.
    """

    id: str
    image: bytes
    mask: bytes
    uncertainty: float
    teacher: str
    soft: bytes | None = None


class OpenShard:
    """An open file: row groups are read one at a time, footers are checked when it is opened.

    Attributes:
        path: of the file.
        group_rows: rows of each row group.

    Args:
        files: the file system.
        path: of the file.
        size: bytes that it must have, if known.
        rows: rows that it must have, if known.

    Raises:
        ShardError: the file is missing, empty, damaged, of another schema version or size, or
            lacks a column.
    """

    def __init__(
        self,
        files: pafs.FileSystem,
        path: str,
        *,
        size: int | None = None,
        rows: int | None = None,
    ) -> None:
        self.path = path
        _check_size(files, path, expected=size)
        with _explained(path):
            self._stream = files.open_input_file(path)
            self._file = pq.ParquetFile(self._stream, page_checksum_verification=True)
        try:
            self._check(rows)
        except ShardError:
            self.close()
            raise
        footer = self._file.metadata
        self.group_rows = tuple(
            footer.row_group(group).num_rows for group in range(footer.num_row_groups)
        )

    def _check(self, rows: int | None) -> None:
        schema = self._file.schema_arrow
        version = (schema.metadata or {}).get(VERSION_KEY, b"missing").decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise ShardError(
                f"{self.path}: schema version {version}, known is {SCHEMA_VERSION}; label again"
            )
        for field in SCHEMA:
            found = schema.field(field.name).type if field.name in schema.names else "missing"
            if found != field.type:
                raise ShardError(
                    f"{self.path}: column {field.name} is {found}, must be {field.type}; columns "
                    f"are {', '.join(f'{known.name} {known.type}' for known in SCHEMA)}"
                )
        if rows is not None and self._file.metadata.num_rows != rows:
            raise ShardError(
                f"{self.path}: {self._file.metadata.num_rows} rows, the manifest says {rows}; "
                "label again"
            )

    def read(self, group: int, *, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return a row group, its bytes still encoded.

        Raises:
            ShardError: it is damaged.
        """
        with _explained(f"{self.path}: row group {group}"):
            return self._file.read_row_group(group, columns=list(columns))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._stream.close()


def row_of(table: pa.Table, at: int) -> ShardRow:
    """Return one row of a table of :meth:`OpenShard.read`."""
    return ShardRow(**table.slice(at, 1).to_pylist()[0])


def decode(row: ShardRow, *, num_classes: int, soft: bool = False) -> dict[str, torch.Tensor]:
    """Decode a row.

    Args:
        row: as stored.
        num_classes: labels are below this.
        soft: whether soft labels are wanted.

    Returns:
        ``image`` ``(3, height, width)`` uint8 and ``mask`` ``(height, width)`` uint8; if asked for
        ``soft`` ``(2, kept, height, width)`` uint8 of
        :func:`raysweep.distill.soft.quantise_soft`.

    Raises:
        ValueError: something is missing or does not decode, sizes differ, a label is out of range.
    """
    mask = _decode_mask(row, num_classes=num_classes)
    image = _decode_image(row)
    _check_same_size(mask, "image", image.shape[:2])
    decoded = {
        "image": torch.from_numpy(image).permute(2, 0, 1).contiguous(),
        "mask": torch.from_numpy(mask),
    }
    if soft:
        decoded["soft"] = _decode_soft(row, mask, num_classes=num_classes)
    return decoded


def label_areas(row: ShardRow, *, num_classes: int) -> list[int]:
    """Return the pixels of each class of a row's mask, after checking the row.

    The image is not decoded if it looks whole.

    Raises:
        ValueError: as :func:`decode`.
    """
    mask = _decode_mask(row, num_classes=num_classes)
    width, height = image_size(row.image, where="image")
    _check_same_size(mask, "image", (height, width))
    if row.soft is not None:
        _decode_soft(row, mask, num_classes=num_classes)
    areas: list[int] = np.bincount(mask.ravel(), minlength=num_classes).tolist()
    return areas


def verify(files: pafs.FileSystem, path: str, *, num_classes: int) -> int:
    """Decode every row of a file and return their number.

    Raises:
        ShardError: names the first row that cannot be used.
    """
    shard = OpenShard(files, path)
    try:
        for group, count in enumerate(shard.group_rows):
            table = shard.read(group)
            for at in range(count):
                row = row_of(table, at)
                try:
                    decode(row, num_classes=num_classes, soft=row.soft is not None)
                except ValueError as error:
                    place = f"row group {group}, row {at} ({row.id!r})"
                    raise ShardError(f"{path}: {place}: {error}") from None
    finally:
        shard.close()
    return sum(shard.group_rows)


def _decode_mask(row: ShardRow, *, num_classes: int) -> Bytes:
    if row.mask is None:  # a file may have been written by others
        raise ValueError("no mask; label again")
    mask = decode_mask(row.mask, classes=LABELS, where="mask")
    highest = int(mask.max())
    if highest >= num_classes:
        raise ValueError(f"mask: label {highest} out of range, known are 0 to {num_classes - 1}")
    return mask


def _decode_image(row: ShardRow) -> Bytes:
    if row.image is None:
        raise ValueError("no image; label again")
    try:
        with Image.open(io.BytesIO(row.image)) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except PILLOW_ERRORS as error:
        # the message of UnidentifiedImageError names a memory address
        reason = "not an image" if "cannot identify" in str(error) else str(error)
        raise ValueError(f"image: unreadable or truncated ({reason})") from None


def _decode_soft(row: ShardRow, mask: Bytes, *, num_classes: int) -> torch.Tensor:
    if row.soft is None:
        raise ValueError("no soft labels; label again with soft labels, or train on hard ones")
    soft = unpack_soft(row.soft)
    _check_same_size(mask, "soft labels", soft.shape[-2:])
    highest = int(soft[0].max())
    if highest >= num_classes:
        raise ValueError(
            f"soft labels: label {highest} out of range, known are 0 to {num_classes - 1}"
        )
    return soft


def _check_same_size(mask: Bytes, what: str, size: Sequence[int]) -> None:
    if tuple(size) != mask.shape:
        raise ValueError(
            f"{what} of {size[0]} x {size[1]} px, mask of {mask.shape[0]} x {mask.shape[1]} px "
            "(height x width); label again"
        )


def _check_size(files: pafs.FileSystem, path: str, *, expected: int | None) -> None:
    with _explained(path):
        found = files.get_file_info(path)
    if found.type != pafs.FileType.File:
        raise ShardError(f"{path}: missing; copy the shards again or label again")
    if found.size == 0:
        raise ShardError(f"{path}: empty file (0 bytes); copy it or label again")
    if expected is not None and found.size != expected:
        raise ShardError(
            f"{path}: {found.size} bytes, the manifest says {expected}: truncated or replaced; "
            "copy it or label again"
        )


@contextmanager
def _explained(place: str) -> Iterator[Any]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            f"{place}: damaged Parquet file ({error}); copy it or label again"
        ) from None
