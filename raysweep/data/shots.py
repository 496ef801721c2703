"""Nested k-shot subsets: of one draw, the two-shot subset contains the one-shot one."""

from __future__ import annotations

import math
from collections.abc import Iterable

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.data.records import Record


def shot_order(records: Iterable[Record], *, draw: int) -> tuple[str, ...]:
    """Return the ids of the training images in the order in which a draw labels them.

    Draw 0 follows the dataset's own ranks; images without one come after those with one. Other
    draws, and draw 0 where there are no ranks, are seeded permutations that depend on the ids
    alone, so adding an image leaves the others in their order.

    Args:
        records: images of all splits.
        draw: which draw.
    """
    train = [record for record in records if record.split == "train"]

    def place(record: Record) -> tuple[float, int, str]:
        rank = record.rank if draw == 0 and record.rank is not None else math.inf
        return rank, rng.derive(draw, "shots", record.id), record.id

    return tuple(record.id for record in sorted(train, key=place))


def take_shots(order: tuple[str, ...], shots: int, *, name: str) -> tuple[str, ...]:
    """Return the first ``shots`` ids of an order.

    Args:
        order: from :func:`shot_order`.
        shots: how many; at least 1.
        name: of the dataset, for the message.

    Raises:
        ConfigError: there are fewer, or none is asked for.
    """
    if shots < 1:
        raise ConfigError(f"data.shots = {shots}: at least 1 labelled image is needed")
    if shots > len(order):
        raise ConfigError(
            f"data.shots = {shots}: only {len(order)} labelled training images in {name}; "
            f"use --set data.shots={len(order)} or label more"
        )
    return order[:shots]
