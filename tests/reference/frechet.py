"""Moments with loops; the Frechet distance by the eigenvalues of the plain product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rows = Sequence[Sequence[float]]


def mean(rows: Rows) -> list[float]:
    """Of each column."""
    return [sum(row[i] for row in rows) / len(rows) for i in range(len(rows[0]))]


def covariance(rows: Rows) -> list[list[float]]:
    """Unbiased, around the mean."""
    centre, dim = mean(rows), len(rows[0])
    return [
        [
            sum((row[i] - centre[i]) * (row[j] - centre[j]) for row in rows) / (len(rows) - 1)
            for j in range(dim)
        ]
        for i in range(dim)
    ]


def distance(mean_a: Sequence[float], cov_a: Rows, mean_b: Sequence[float], cov_b: Rows) -> float:
    """The product of two covariances is not symmetric, its eigenvalues are real all the same."""
    a, b = np.array(cov_a), np.array(cov_b)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real
    shift = sum((x - y) ** 2 for x, y in zip(mean_a, mean_b, strict=True))
    spread = sum(a[i, i] + b[i, i] for i in range(len(a)))
    return float(shift + spread - 2 * sum(roots))
