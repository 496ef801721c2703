"""DatasetGAN's cross-validation, read from its description, on label lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.reference.metrics import Images, summary


def cross_validate(
    candidates: Sequence[Images], truth: Images, names: Sequence[str], num_classes: int, absent: str
) -> tuple[list[int], list[dict[str, float]], float, float]:
    """Chosen candidate and test scores per fold, mean and standard deviation of the mIoU."""
    order = [at for _, at in sorted((name, at) for at, name in enumerate(names))]
    n = len(order) // 5
    chosen, found = [], []
    for i in range(5):
        validation: list[int] = []
        test: list[int] = []
        for position, at in enumerate(order):
            (validation if n * i <= position < n * i + n else test).append(at)
        best, best_at = -1.0, -1
        for index, labels in enumerate(candidates):
            score = _split(labels, truth, validation, num_classes, absent)["miou"]
            if score > best:
                best, best_at = score, index
        chosen.append(best_at)
        found.append(_split(candidates[best_at], truth, test, num_classes, absent))
    mean = sum(fold["miou"] for fold in found) / 5
    variance = sum((fold["miou"] - mean) ** 2 for fold in found) / 5
    return chosen, found, mean, math.sqrt(variance)


def _split(
    labels: Images, truth: Images, images: Sequence[int], num_classes: int, absent: str
) -> dict[str, float]:
    return summary(
        [labels[at] for at in images], [truth[at] for at in images], num_classes, absent=absent
    )
