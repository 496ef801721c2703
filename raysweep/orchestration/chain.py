"""The stages of an experiment and the keys under which their results are found."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from raysweep.config import ConfigError, to_dict
from raysweep.orchestration.stages import Stage
from raysweep.presets import Experiment

VERSIONS = {"pretrain": 1, "fit": 1, "evaluate": 1}
"""Raised when a change of code changes what a stage computes from the same settings."""


class Chain(NamedTuple):
    """The stages of one experiment, in the order in which they are computed."""

    pretrain: Stage
    fit: Stage
    evaluate: Stage


def chain_of(experiment: Experiment, fingerprint: str) -> Chain:
    """Return the stages of an experiment on the dataset with that fingerprint."""
    data, images = experiment.data, {"data": fingerprint}
    represent = experiment.pretrain.relevant()
    if experiment.pretrain.weights is not None and "weights" in represent:
        represent["weights"] = file_digest(experiment.pretrain.weights)  # the content, not the path
    sees_images = experiment.pretrain.method in ("moco", "simsiam", "random")
    pretrain = Stage(
        "pretrain",
        {"represent": represent} | ({"px": data.px} if sees_images else {}),
        images if sees_images else {},
        VERSIONS["pretrain"],
    )
    fit = Stage(
        "fit",
        {"fit": to_dict(experiment.fit), "px": data.px, "shots": data.shots, "draw": data.draw},
        {"pretrain": pretrain.key} | images,
        VERSIONS["fit"],
    )
    evaluate = Stage(
        "evaluate",
        {"evaluate": to_dict(experiment.evaluate)},
        {"fit": fit.key} | images,
        VERSIONS["evaluate"],
    )
    return Chain(pretrain, fit, evaluate)


def file_digest(path: str) -> str:
    """Return a hash of a file's content.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
    except OSError as error:
        raise ConfigError(
            f"pretrain.weights = {path!r} cannot be read: {error.strerror}; give a local file"
        ) from None
