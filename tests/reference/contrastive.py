"""InfoNCE, momentum encoder and SimSiam's loss, one number at a time, from the papers."""

from __future__ import annotations

import math


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def info_nce(
    queries: list[list[float]],
    keys: list[list[float]],
    queue: list[list[float]],
    temperature: float,
) -> float:
    """Mean over queries of -log(exp(q k+ / T) / sum_k exp(q k / T)); MoCo eq. 1."""
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(dot(query, key) / temperature)
        negatives = sum(math.exp(dot(query, other) / temperature) for other in queue)
        total -= math.log(positive / (positive + negatives))
    return total / len(queries)


def negative_cosine(predictions: list[list[float]], targets: list[list[float]]) -> float:
    """Mean of -<p/|p|, z/|z|>; SimSiam eq. 1."""
    rows = zip(predictions, targets, strict=True)
    return -sum(dot(unit(p), unit(z)) for p, z in rows) / len(predictions)


def spread(rows: list[list[float]]) -> float:
    """sqrt(d) times the mean over channels of the sample deviation of unit-length rows."""
    units = [unit(row) for row in rows]
    dim = len(units[0])
    deviations = []
    for channel in range(dim):
        values = [row[channel] for row in units]
        mean = sum(values) / len(values)
        deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)))
    return math.sqrt(dim) * sum(deviations) / dim
