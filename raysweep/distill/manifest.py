"""The manifest of a set of pseudo-label shards: everything known without opening a file."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow.fs as pafs
from pydantic import Field

from raysweep.config import Config, digest, from_dict, to_dict
from raysweep.distill.rows import SCHEMA_VERSION, ShardError

MANIFEST_NAME = "manifest.json"


class ShardFile(Config):
    """One file of a set of shards.

    Attributes:
        name: within the directory of the manifest.
        rows: number of rows.
        bytes: size of the file.
        digest: hash of the file's bytes.
        class_pixels: pixels of each class in all masks.
    """

    name: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=1)
    digest: str
    class_pixels: tuple[int, ...]


class Manifest(Config):
    """What is known of a set of shards without opening a file; stored as ``manifest.json``.

    Attributes:
        files: in the order of the rows.
        teacher: key of the model that labelled the images.
        class_pixels: pixels of each class in all masks of all files.
        fingerprint: changes with the content of any file, their order and the teacher.
        schema_version: of the files.
    """

    files: tuple[ShardFile, ...]
    teacher: str
    class_pixels: tuple[int, ...]
    fingerprint: str
    schema_version: int = SCHEMA_VERSION

    @property
    def rows(self) -> int:
        """Number of rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_pixels)


def write_manifest(
    files: pafs.FileSystem, root: str, shards: Sequence[ShardFile], *, teacher: str
) -> Manifest:
    """Write ``manifest.json``, which makes a directory of files a set of shards.

    Raises:
        ShardError: the files differ in their number of classes, or there is none.
    """
    if len({len(shard.class_pixels) for shard in shards}) != 1:
        raise ShardError(f"{root}: one or more files, all of the same classes, make a set")
    manifest = Manifest(
        files=tuple(shards),
        teacher=teacher,
        class_pixels=tuple(map(sum, zip(*(shard.class_pixels for shard in shards), strict=True))),
        fingerprint=_fingerprint(shards, teacher=teacher),
    )
    path = f"{root}/{MANIFEST_NAME}"
    with files.open_output_stream(f"{path}.tmp") as stream:
        stream.write((json.dumps(to_dict(manifest), indent=1) + "\n").encode())
    files.move(f"{path}.tmp", path)
    return manifest


def read_manifest(files: pafs.FileSystem, root: str) -> Manifest:
    """Return the manifest of a set of shards; no other file is opened.

    Raises:
        ShardError: there is none, it is of another schema version, or it was altered.
    """
    path = f"{root}/{MANIFEST_NAME}"
    try:
        with files.open_input_file(path) as stream:
            data = json.loads(stream.read())
        version = data["schema_version"]
        if version == SCHEMA_VERSION:
            manifest = from_dict(Manifest, data)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ShardError(
            f"{path}: {type(error).__name__}: {error}; the shards were not finished or the file "
            "is damaged: label again"
        ) from None
    if version != SCHEMA_VERSION:
        raise ShardError(
            f"{path}: schema version {version}, known is {SCHEMA_VERSION}; label again"
        )
    if manifest.fingerprint != _fingerprint(manifest.files, teacher=manifest.teacher):
        raise ShardError(f"{path}: the fingerprint is not that of the files; label again")
    return manifest


def _fingerprint(shards: Sequence[ShardFile], *, teacher: str) -> str:
    return digest(
        {
            "files": [[shard.digest, shard.rows, shard.class_pixels] for shard in shards],
            "teacher": teacher,
            "schema_version": SCHEMA_VERSION,
        }
    )
