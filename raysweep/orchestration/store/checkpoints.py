"""Checkpoints of a half-done stage: the newest, and the one before in case that gets damaged."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from raysweep.orchestration.store.storage import write_atomically

LOG = logging.getLogger(__name__)
NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"
KEPT = int(os.environ.get("RAYSWEEP_CHECKPOINTS_KEPT", "2"))
"""1 keeps the newest only: half the disk, and a stage whose checkpoint is damaged starts again."""

CHECKSUM_BYTES = 32


def save(folder: Path, state: dict[str, Any], *, seconds: float) -> None:
    """Store a state, atomically, with the time spent so far."""
    buffer = io.BytesIO()
    torch.save({"state": state, "seconds": seconds}, buffer)
    data = buffer.getvalue()
    if KEPT > 1 and (folder / NEWEST).exists():
        # a second name: at no moment is there none
        aside = folder / f"{BEFORE}.tmp"
        aside.unlink(missing_ok=True)
        try:
            aside.hardlink_to(folder / NEWEST)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder / NEWEST, aside)
        aside.replace(folder / BEFORE)
    write_atomically(folder / NEWEST, _checksum(data) + data)


def load(folder: Path, name: str) -> tuple[dict[str, Any], float]:
    """Return a stored state, and the time spent until then.

    Raises:
        FileNotFoundError: there is none of that name.
        DamagedError: it cannot be read.
    """
    stored = (folder / name).read_bytes()
    try:
        saved = torch.load(_checked(stored), map_location="cpu", weights_only=True)
        return dict(saved["state"]), float(saved["seconds"])
    except Exception as error:  # torch, zip and pickle raise whatever comes first
        why = str(error).partition("\n")[0] or type(error).__name__
        raise DamagedError(why) from error


class DamagedError(RuntimeError):
    """A checkpoint cannot be read."""


def set_aside(folder: Path, name: str, *, of: object, why: DamagedError) -> None:
    """Move a damaged checkpoint out of its folder, and say so."""
    aside = folder.with_name(f"{folder.name}.damaged.pt")
    with contextlib.suppress(FileNotFoundError):  # another worker of this run was faster
        (folder / name).replace(aside)
    has_other = name == NEWEST and (folder / BEFORE).exists()
    LOG.warning(
        "the checkpoint of %s is damaged (%s); it is kept as %s, and the stage %s",
        of,
        why,
        aside,
        "goes on from the one before" if has_other else "starts again",
    )


def _checksum(data: bytes) -> bytes:
    """Return what precedes a checkpoint; torch alone takes many a changed bit for a weight."""
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).digest()


def _checked(stored: bytes) -> io.BytesIO:
    data = stored[CHECKSUM_BYTES:]
    if _checksum(data) != stored[:CHECKSUM_BYTES]:
        raise ValueError("its checksum does not match")
    return io.BytesIO(data)
