"""Where results live: a local path, or any filesystem that ``pyarrow.fs`` opens."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import pyarrow.fs as pafs

from raysweep.config import ConfigError, digest


class Storage:
    """A root directory, local or remote, addressed by relative names with forward slashes.

    Args:
        uri: a path (``runs/``) or a URI (``s3://bucket/prefix``, ``gs://...``, ``file:///...``).

    Raises:
        ConfigError: no filesystem is known for the URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
        try:
            self.fs, self.root = pafs.FileSystem.from_uri(self.uri)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--storage {uri!r} cannot be opened: {error}; give a path or a URI of pyarrow.fs "
                "(file://, s3://, gs://, abfss://)"
            ) from None
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)

    def path(self, *names: str) -> str:
        """Return the filesystem's own path of a name below the root."""
        return "/".join((self.root.rstrip("/"), *names))

    def address(self, *names: str) -> str:
        """Return what opens a name from anywhere: a path if local, else a URI, query included."""
        if self.is_local:
            return self.path(*names)
        place, mark, query = self.uri.partition("?")  # s3://bucket/runs?endpoint_override=...
        return "/".join((place.rstrip("/"), *names)) + mark + query

    def delete(self, *names: str) -> None:
        """Delete a directory, if it is there."""
        if self.exists(*names):
            self.fs.delete_dir(self.path(*names))

    def local(self, *names: str) -> Path:
        """Return where a name lives on this machine: in place, or in a scratch mirror."""
        if self.is_local:
            return Path(self.path(*names))
        scratch = Path(os.environ.get("RAYSWEEP_SCRATCH", tempfile.gettempdir()))
        return scratch.joinpath(f"raysweep-{digest(self.uri)}", *names)

    def exists(self, *names: str) -> bool:
        """Return whether a file or directory of that name is there."""
        info = self.fs.get_file_info(self.path(*names))
        return bool(info.type != pafs.FileType.NotFound)

    def check_writable(self) -> None:
        """Write and delete a small file, so that a bad path fails before any work.

        Raises:
            ConfigError: the file could not be written.
        """
        probe = self.path(f".writable-{os.getpid()}")
        try:
            self.fs.create_dir(self.root, recursive=True)
            with self.fs.open_output_stream(probe) as stream:
                stream.write(b"ok")
            self.fs.delete_file(probe)
        except OSError as error:
            raise ConfigError(
                f"--storage {self.uri!r} cannot be written: {error}; choose another place"
            ) from None

    def upload(self, source: Path, *names: str) -> None:
        """Copy a local file to a name; a reader sees all of it or nothing."""
        target = self.path(*names)
        try:
            pafs.copy_files(str(source), target, destination_filesystem=self.fs)
        except FileNotFoundError:  # not an object store, where names need no directories
            self.fs.create_dir(target.rpartition("/")[0], recursive=True)
            pafs.copy_files(str(source), target, destination_filesystem=self.fs)

    def fetch(self, target: Path, *names: str) -> list[Path]:
        """Copy the files of a remote directory into a local one, each whole; return the copies."""
        root, copies = self.path(*names), []
        for found in self.fs.get_file_info(pafs.FileSelector(root, recursive=True)):
            if found.type == pafs.FileType.File:
                place = target / found.path.removeprefix(f"{root}/")
                _made(place.parent)
                with self.fs.open_input_stream(found.path) as stream:
                    write_atomically(place, stream.read())
                copies.append(place)
        return copies

    def download(self, *names: str) -> Path:
        """Return a local copy of a remote directory; local storage returns it in place."""
        target = self.local(*names)
        if self.is_local or target.exists():
            return target
        aside = Path(tempfile.mkdtemp(dir=_made(target.parent)))
        pafs.copy_files(self.path(*names), str(aside), source_filesystem=self.fs)
        try:
            aside.rename(target)
        except OSError:  # another process of this machine was faster
            shutil.rmtree(aside)
        return target


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


FULL = (os.strerror(errno.ENOSPC), "database or disk is full")
"""What errors say that have no number: those of Ray's copies, and SQLite's."""


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, says that a disk has no room left."""
    while error is not None:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or any(words in str(error) for words in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old content or the new one."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError:  # half a file would keep a full disk full
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
