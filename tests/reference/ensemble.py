"""Votes, disagreement and filtering from lists, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence


def winner(scores: Sequence[Sequence[float]]) -> int:
    """The label of one pixel from ``scores[member][class]``."""
    chosen = [max(range(len(row)), key=lambda c: (row[c], -c)) for row in scores]
    best = 0
    for label in range(len(scores[0])):
        if chosen.count(label) > chosen.count(best):
            best = label
    return best


def entropy(p: Sequence[float]) -> float:
    """In nats; nothing is added for a class of probability 0."""
    return -sum(value * math.log(value) for value in p if value > 0)


def disagreement(p: Sequence[Sequence[float]]) -> float:
    """Jensen-Shannon divergence of one pixel from ``p[member][class]``."""
    members = len(p)
    mean = [sum(row[c] for row in p) / members for c in range(len(p[0]))]
    return entropy(mean) - sum(entropy(row) for row in p) / members


def image_score(divergence: Sequence[float]) -> float:
    """The mean of the top 10 percent of an image's pixels."""
    count = int(len(divergence) / 10) or 1
    return sum(sorted(divergence)[-count:]) / count


def kept(scores: Sequence[float], portion: float, *, released: bool) -> list[int]:
    """Indices of the images that stay, ascending by score."""
    order = [index for _, index in sorted((score, index) for index, score in enumerate(scores))]
    dropped = math.floor(len(scores) * portion)
    if not released:
        return order[: len(scores) - dropped]
    return order[30 : len(scores) - dropped + 30]
