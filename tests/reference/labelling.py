"""What a teacher says, pixel by pixel: DatasetGAN (2104.06490) 3.2, GanOrCon's hard labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.reference.ensemble import disagreement, entropy, image_score


def softmax(scores: Sequence[float]) -> list[float]:
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    return [power / sum(powers) for power in powers]


def best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda at: (scores[at], -at))


def single(scores: Sequence[Sequence[float]]) -> tuple[list[int], float, list[list[float]]]:
    """Of one annotator's scores per pixel: labels, mean entropy, probabilities."""
    probabilities = [softmax(pixel) for pixel in scores]
    uncertainty = sum(entropy(p) for p in probabilities) / len(probabilities)
    return [best(pixel) for pixel in scores], uncertainty, probabilities


def ensemble(
    scores: Sequence[Sequence[Sequence[float]]],
) -> tuple[list[int], float, list[list[float]]]:
    """Of ``scores[pixel][member]``: majority, score of the image, mean probabilities."""
    labels, divergence, means = [], [], []
    for pixel in scores:
        chosen = [best(member) for member in pixel]
        labels.append(min(chosen, key=lambda label: (-chosen.count(label), label)))
        every = [softmax(member) for member in pixel]
        divergence.append(disagreement(every))
        means.append([sum(values) / len(every) for values in zip(*every, strict=True)])
    return labels, image_score(divergence), means


def cleaned(labels: Sequence[int], pixels: int) -> list[int]:
    """Classes with fewer pixels become background."""
    return [0 if list(labels).count(label) < pixels else label for label in labels]
