"""Out of memory: said as such, and tried once more with smaller micro-batches.

A stage whose memory did not suffice is computed again from its last checkpoint, each batch in
``PARTS`` parts (:mod:`raysweep.micro`). That this is so lies beside the half-done stage, since on
the host it is Ray, or the kernel, that ends the process, and another one goes on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from raysweep import collective, micro
from raysweep.config import from_dict
from raysweep.nets.projectors import ProjectorConfig, build_projector
from raysweep.orchestration.store.stages import Stage
from raysweep.orchestration.store.storage import Storage
from raysweep.represent.config import RepresentConfig

LOG = logging.getLogger(__name__)
PARTS = 4
"""One retry only: a quarter of the memory of the activations, rather than half of it."""

SAID_BY_GPU = ("CUDA out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
SAID_BY_HOST = ("can't allocate memory", "Cannot allocate memory")
KILLED = "killed due to the node running low on memory"
VICTIM = re.compile(r"Selected to kill: \(Actor\(([0-9a-f]+)\)")
ABOUT_HOST = "Ray ended its process, since the machine's memory was nearly used up"
MATTERS = ("batch", "resolution", "px", "precision")
"""Settings that decide how much memory a stage needs, by the last part of their names."""

ROOTS = {"represent": "pretrain"}
"""Stages' names of settings to experiments' names, where they differ."""


class OutOfMemoryError(RuntimeError):
    """A stage needs more memory than there is; names its settings and what to do."""


class Thrift:
    """In how many parts the batches of a half-done stage are taken.

    Args:
        storage: seen by whoever computes it next.
        stage: what is computed.
    """

    def __init__(self, storage: Storage, stage: Stage) -> None:
        self.storage, self.stage = storage, stage
        self.path = storage.path("work", f"{stage.name}-{stage.key}.parts")

    def parts(self) -> int:
        """Return the number of parts; 1 unless memory has run out before."""
        try:
            with self.storage.fs.open_input_stream(self.path) as stream:
                return int(json.loads(stream.read()))
        except (FileNotFoundError, ValueError):  # half written: as if it were not there
            return 1

    def lower(self) -> bool:
        """Go over to ``PARTS`` parts; return False if they have been tried or do not help."""
        if self.parts() > 1 or not divisible(self.stage):
            return False
        self.storage.fs.create_dir(self.path.rpartition("/")[0], recursive=True)
        with self.storage.fs.open_output_stream(self.path) as stream:
            stream.write(json.dumps(PARTS).encode())
        return True

    def forget(self) -> None:
        """Let the next command begin with whole batches: it may have more memory."""
        with contextlib.suppress(FileNotFoundError):
            self.storage.fs.delete_file(self.path)


def sparing(
    stage: Stage, storage: Storage, work: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Compute a stage; once more in micro-batches if memory runs out.

    One of several workers only leaves word: all of them start again.

    Args:
        stage: what is computed.
        storage: where word of it is left.
        work: computes it; returns its metrics.

    Returns:
        The metrics; with ``micro_batches``, if there were any, and ``batch_statistics``, what they
        have changed.

    Raises:
        OutOfMemoryError: smaller micro-batches do not help.
    """
    thrift = Thrift(storage, stage)
    parts = thrift.parts()
    try:
        with micro.batches(parts):
            metrics = {**work(), **_changes(stage, parts)}
    except Exception as error:  # MemoryError, and torch's own of several types
        what = exhausted(error)
        if what is None:
            raise
        if not thrift.lower():
            thrift.forget()
            raise OutOfMemoryError(explain(stage, parts, what, error)) from error
        LOG.warning("%s: out of %s; once more in %d micro-batches per step", stage, what, PARTS)
        if collective.size() > 1:
            raise
    else:
        thrift.forget()
        return metrics
    gc.collect()  # frames of the failure held the activations
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return sparing(stage, storage, work)


def exhausted(error: BaseException) -> str | None:
    """Return which memory an error says was too small: ``GPU memory``, ``memory``, or None."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(said in text for said in SAID_BY_GPU):
        return "GPU memory"
    if isinstance(error, MemoryError) or any(said in text for said in SAID_BY_HOST):
        return "memory"
    return None


def killed(error: object) -> list[str] | None:
    """Return the ids of the actors that Ray ended for want of memory, None if it is not that."""
    text = str(error)
    return VICTIM.findall(text) if KILLED in text else None


def divisible(stage: Stage) -> bool:
    """Return whether a stage has batches that can be taken in parts.

    Not so gradient matching, whose loss is no sum over images, the pixel ensemble, whose batches
    are small, and the search for codes.
    """
    return stage.name != "project" and _method(stage) not in ("matching", "pixel_ensemble")


def explain(stage: Stage, parts: int, what: str, error: object) -> str:
    """Return what to tell a user whose stage has run out of memory."""
    settings = ", ".join(f"{name} = {value}" for name, value in _settings(stage.config))
    in_parts = f", also in {parts} micro-batches per step," if parts > 1 else ""
    machine = "GPU" if what == "GPU memory" else "machine"
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"{stage}: out of {what}{in_parts} with {settings or 'its settings'}; lower one of them, "
        f"or use a {machine} with more memory ({first})"
    )


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        whole = f"{prefix}.{name}" if prefix else ROOTS.get(name, name)
        if isinstance(value, Mapping):
            yield from _settings(value, whole)
        elif name in MATTERS:
            yield whole, value


def _method(stage: Stage) -> str:
    settings = next((v for v in stage.config.values() if isinstance(v, Mapping)), {})
    return str(settings.get("method", ""))


def _changes(stage: Stage, parts: int) -> dict[str, Any]:
    if parts == 1:
        return {}
    found: dict[str, Any] = {"micro_batches": parts}
    if _has_batch_statistics(stage, parts):
        found["batch_statistics"] = f"of 1/{parts} of a batch at a time"
    return found


def _groups(config: RepresentConfig) -> float:
    """Return into how many groups a worker's batch falls whose images are looked at together."""
    if config.contrastive:
        return config.bn_groups
    together = config.network.mbstd_group
    return math.inf if together == 1 else config.gan.batch / collective.size() / together


def _has_batch_statistics(stage: Stage, parts: int) -> bool:
    """Return whether a network is trained that looks at the images of a batch together."""
    if stage.name == "pretrain":
        return _groups(from_dict(RepresentConfig, stage.config["represent"])) < parts
    if stage.name == "fit":
        config = from_dict(ProjectorConfig, stage.config["fit"]["projector"])
        with torch.device("meta"):
            projector = build_projector(config, [1], 2)
        return any(isinstance(module, nn.BatchNorm2d) for module in projector.modules())
    return stage.name == "distill"  # every student has batch norm
