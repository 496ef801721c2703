"""Folders, .zip and .tar archives as one kind of thing: named files that can be read.

Nothing is unpacked. A compressed .tar cannot be read out of order, so its decompressed stream is
kept in one scratch file as long as the import lasts.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from raysweep.config import ConfigError, digest

SPOOL_SUFFIX = ".spool"
PACKED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".tbz2": bz2.open,
    ".xz": lzma.open,
    ".txz": lzma.open,
}
DAMAGE = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class Tree(ABC):
    """Files by name; names are relative, with slashes. Threads may read side by side.

    Attributes:
        where: the folder or archive, named in errors.
        names: of all files, sorted as text; hidden files and macOS's ``__MACOSX`` are left out.
    """

    def __init__(self, where: Path, names: Iterable[str]) -> None:
        self.where = where
        self.names = tuple(sorted(name for name in names if not _hidden(name)))

    @abstractmethod
    def stamp(self, name: str) -> str:
        """Return what changes if the file does: its size and date or checksum."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            ConfigError: it cannot be read, or the archive is damaged there.
        """

    def path(self, name: str) -> str:
        """Return how errors name a file."""
        return f"{self.where}/{name}"

    def close(self) -> None:  # noqa: B027 a folder has nothing to close
        """Let go of open files."""


class Folder(Tree):
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        found = (
            (Path(folder) / name).relative_to(root).as_posix()
            for folder, _, names in os.walk(root, followlinks=True)
            for name in names
        )
        super().__init__(root, found)

    def stamp(self, name: str) -> str:
        """Return size and date."""
        status = (self.where / name).stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        try:
            return (self.where / name).read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.path(name)}: {error.strerror}") from None


class Zip(Tree):
    """The members of a .zip archive."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise _damaged(path, error) from None
        members = [info for info in self._archive.infolist() if not info.is_dir()]
        for info in members:
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            _check_member(path, info.filename, is_link=is_link)
        self._members = {info.filename: info for info in members}
        _check_once(path, [info.filename for info in members])
        super().__init__(path, self._members)

    def stamp(self, name: str) -> str:
        """Return size and checksum."""
        return f"{self._members[name].file_size} {self._members[name].CRC}"

    def read(self, name: str) -> bytes:
        """Return a member's content after checking its checksum."""
        try:
            return self._archive.read(self._members[name])
        except (*DAMAGE, RuntimeError, NotImplementedError) as error:
            raise ConfigError(f"{self.path(name)}: cannot be read ({error})") from None

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


class Tar(Tree):
    """The members of a .tar archive, read by their place in the file.

    Args:
        path: named in errors.
        stored: the uncompressed archive.
    """

    def __init__(self, path: Path, stored: Path) -> None:
        self._file: IO[bytes] = stored.open("rb")
        self._places: dict[str, tuple[int, int]] = {}
        names: list[str] = []
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    _check_member(path, member.name, is_link=not member.isreg())
                    name = member.name.removeprefix("./")
                    names.append(name)
                    self._places[name] = (member.offset_data, member.size)
        except DAMAGE as error:
            self._file.close()
            raise _damaged(path, error) from None
        except ConfigError:
            self._file.close()
            raise
        _check_once(path, names)
        super().__init__(path, names)

    def stamp(self, name: str) -> str:
        """Return place and size."""
        return "{} {}".format(*self._places[name])

    def read(self, name: str) -> bytes:
        """Return a member's content."""
        offset, size = self._places[name]
        data = os.pread(self._file.fileno(), size, offset)  # threads share the file, not its place
        if len(data) < size:
            raise ConfigError(f"{self.path(name)}: the archive ends within it; download it again")
        return data

    def close(self) -> None:
        """Close the archive."""
        self._file.close()


def open_tree(source: Path, *, scratch: Path) -> Tree:
    """Open a folder or an archive.

    Args:
        source: a folder, or a file ending in .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz.
        scratch: existing directory for the stream of a compressed .tar, a ``.spool`` in it.

    Raises:
        ConfigError: it is not there, of no such kind, damaged, or holds a member that would
            escape the directory into which it is unpacked.
    """
    if source.is_dir():
        return Folder(source)
    if not source.is_file():
        raise ConfigError(f"{source} does not exist; give a folder, a .zip or a .tar archive")
    if source.suffix == ".zip":
        return Zip(source)
    if source.suffix == ".tar":
        return Tar(source, source)
    packed = source.suffix in (".tgz", ".tbz2", ".txz") or source.stem.endswith(".tar")
    if source.suffix not in PACKED or not packed:
        raise ConfigError(f"{source}: neither a folder nor an archive (.zip, .tar, .tar.gz, .tgz)")
    status = source.stat()
    identity = digest([str(source.resolve()), status.st_size, status.st_mtime_ns])
    stored = scratch / f"{identity}{SPOOL_SUFFIX}"
    if not stored.exists():
        _spool(source, stored)
    return Tar(source, stored)


def _spool(source: Path, stored: Path) -> None:
    aside = stored.with_name(f"{stored.name}.tmp")
    try:
        with PACKED[source.suffix](source) as stream, aside.open("wb") as sink:
            shutil.copyfileobj(stream, sink, 1 << 20)
    except DAMAGE as error:
        aside.unlink(missing_ok=True)
        raise _damaged(source, error) from None
    aside.replace(stored)


def _check_member(archive: Path, name: str, *, is_link: bool) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise ConfigError(f"{archive}: member {name!r} would escape; do not use this archive")
    if is_link:
        raise ConfigError(f"{archive}: member {name!r} is a link or device, not a file; repack it")


def _check_once(archive: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{archive}: member {name!r} occurs twice; repack it with one")
        seen.add(name)


def _damaged(path: Path, error: BaseException) -> ConfigError:
    return ConfigError(f"{path}: damaged or truncated archive ({error}); download it again")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
