"""Damaged renderings of a built-in dataset are found, and made again by whoever renders."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from raysweep.config import ConfigError
from raysweep.data.builtin import builtin_chunks, builtin_path
from raysweep.data.parquet import read_parquet
from raysweep.data.render import DOMAINS
from raysweep.experiment import DataConfig
from raysweep.orchestration.store.storage import Storage

LOG = logging.getLogger(__name__)


def mend(data: DataConfig, storage: Storage) -> None:
    """Read a built-in dataset once, if it is there; turn it into a half-done one if it is damaged.

    Damaged files are set aside with a warning. Rendering goes on with what is missing. Other
    datasets have no other source: what is damaged there is an error, raised by who reads it.
    """
    cache = storage.local("data")
    if data.source not in DOMAINS:
        return
    target = builtin_path(data.builtin, data.source, cache=cache)
    if not target.exists():
        return
    with FileLock(target.with_name(f"{target.name}.lock")):  # as who renders
        damaged = [
            path
            for chunk in builtin_chunks(data.builtin, data.source)
            if not _is_whole(path := target / chunk.file_name)
        ]
        if not damaged and _opens(target):
            return
        for path in damaged:
            LOG.warning("%s is damaged; it is set aside and rendered again", path)
            if path.exists():
                path.replace(path.with_suffix(".damaged"))
        target.rename(target.with_name(f"{target.name}.partial"))


def _opens(target: Path) -> bool:
    try:
        read_parquet(str(target))
    except ConfigError as error:
        LOG.warning("%s; it is written again", error)
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Return whether every page of a file matches its checksum."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (OSError, pa.ArrowException):
        return False
    return True
