"""How many processes train together: a number, or as many as can be had between two."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysweep.config import ConfigError

if TYPE_CHECKING:
    from raysweep.distill.student_config import StudentConfig
    from raysweep.represent.config import RepresentConfig

Counts = tuple[int, ...]
"""The numbers of workers that may train together, the fewest first; one of them: no more, no fewer.

The workers share every batch, so not every number fits: those between that do not are never used.
"""


@dataclass(frozen=True)
class Workers:
    """What ``--workers`` says.

    Attributes:
        least: fewest processes that train.
        most: most processes; as many as can be had, where it is more than ``least``.
    """

    least: int = 1
    most: int = 1

    @property
    def several(self) -> bool:
        """Whether more than one process may train."""
        return self.most > 1

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least}-{self.most}"


def parse_workers(text: str) -> Workers:
    """Return what ``N`` or ``MIN-MAX`` means; the type of the flag.

    Raises:
        argparse.ArgumentTypeError: neither is given.
    """
    first, dash, last = text.partition("-")
    numbers = [int(part) if part.isdecimal() else 0 for part in (first, last if dash else first)]
    if not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a whole number of 1 or more nor a range such as 2-8"
        )
    return Workers(*numbers)


def pretrain_counts(config: RepresentConfig, workers: Workers) -> Counts:
    """Return the numbers of workers that can share a representation's training.

    Raises:
        ConfigError: there is none.
    """
    return _counts(workers, lambda count: _check_pretraining(config, count))


def student_counts(config: StudentConfig, workers: Workers) -> Counts:
    """Return the numbers of workers that can share a student's training.

    Raises:
        ConfigError: there is none.
    """
    return _counts(workers, lambda count: _check_student(config, count))


def preview_counts(counts: Counts) -> str:
    """Word the numbers that may train for a user."""
    if len(counts) == 1:
        return f"workers: {counts[0]}"
    return f"workers: {', '.join(map(str, counts[:-1]))} or {counts[-1]}, the most that can be had"


def word_history(worker_counts: Sequence[Sequence[int]]) -> str:
    """Word ``worker_counts`` of a stage's metrics for a user."""
    parts = (f"{count} from step {first}" for first, count in worker_counts)
    return f"workers: {', '.join(parts)}"


def _counts(workers: Workers, check: Callable[[int], None]) -> Counts:
    found, problems = [], []
    for count in range(workers.least, workers.most + 1):
        try:
            check(count)
            found.append(count)
        except ConfigError as error:
            problems.append(error)
    if not found and workers.least == workers.most:
        raise problems[0]
    if not found:
        raise ConfigError(
            f"--workers {workers}: none of these numbers can share the training, e.g. "
            f"{problems[0]}; take a wider range"
        )
    return tuple(found)


def _check_pretraining(config: RepresentConfig, workers: int) -> None:
    if config.images_per_step % workers:
        setting = "pretrain.batch" if config.contrastive else "pretrain.gan.batch"
        raise ConfigError(f"--workers {workers}: must divide {setting} = {config.images_per_step}")
    if config.trains_generator:
        from raysweep.orchestration.compute.generative import (
            check_workers,  # torch takes seconds to import
        )

        check_workers(config, workers)
        return
    share, groups = config.batch // workers, config.bn_groups
    if share % groups or share // groups < 2:
        raise ConfigError(
            f"--workers {workers}: each worker's {share} images of pretrain.batch cannot be split "
            f"into pretrain.bn_groups = {groups} groups of at least 2"
        )


def _check_student(config: StudentConfig, workers: int) -> None:
    if config.batch % workers:
        raise ConfigError(f"--workers {workers}: must divide student.batch = {config.batch}")
    if config.network != "unet" and config.batch // workers < 2:
        raise ConfigError(
            f"--workers {workers}: {config.network} needs two or more images per worker; raise "
            f"student.batch = {config.batch} or use fewer"
        )
