"""Which checkpoint is chosen, and on which images it is scored.

Protocols are functions on confusion matrices: a candidate checkpoint is run at most once over a
split, and what a protocol decides can be recomputed from the counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from raysweep.evaluate.metrics import Absent, Scores, scores

FOLDS = 5


@dataclass(frozen=True)
class Result:
    """What a protocol found.

    Attributes:
        scores: of the test images; over folds, the mean of each score.
        selected: index of the chosen candidate, one per fold.
        val_miou: mIoU by which it was chosen, the mean over folds; settings are compared by it.
        spread: standard deviation of the mIoU over folds (``ddof=0``, as in the released code);
            None for a single split.
    """

    scores: Scores
    selected: tuple[int, ...]
    val_miou: float
    spread: float | None = None


def held_out(val: torch.Tensor, test: Callable[[int], torch.Tensor], *, absent: Absent) -> Result:
    """Choose the candidate with the best validation mIoU and score it on the test split.

    Args:
        val: ``(candidates, classes, classes)`` counts summed over the validation images.
        test: index of a candidate to its ``(classes, classes)`` counts over the test images; asked
            for the chosen candidate only.
        absent: see :func:`raysweep.evaluate.metrics.scores`.
    """
    chosen, val_miou = _best(val, absent=absent)
    return Result(scores(test(chosen), absent=absent), (chosen,), val_miou)


def five_folds(confusions: torch.Tensor, names: Sequence[str], *, absent: Absent) -> Result:
    """DatasetGAN's cross-validation, which GanOrCon and LAGM also report.

    Images are sorted by name *as text* (``face_10`` before ``face_2``). Each fold holds a fifth
    of them, rounded down, and selects the checkpoint; the test set of the fold is all the other
    images, four fifths. A later checkpoint must be strictly better. The released code takes the
    checkpoints in text order of their file names; here they come in order of training step.

    Args:
        confusions: ``(candidates, images, classes, classes)`` counts.
        names: of the images.
        absent: see :func:`raysweep.evaluate.metrics.scores`.

    Raises:
        ValueError: there are fewer images than folds.
    """
    size = len(names) // FOLDS
    if size == 0:
        raise ValueError(
            f"evaluate.protocol = 'five_folds': needs {FOLDS} or more test images, got "
            f"{len(names)}; use --set evaluate.protocol=held_out"
        )
    order = sorted(range(len(names)), key=lambda at: names[at])
    found, selected, chosen_by = [], [], []
    for fold in range(FOLDS):
        inside = order[fold * size : (fold + 1) * size]
        outside = [at for at in order if at not in set(inside)]
        chosen, val_miou = _best(confusions[:, inside].sum(1), absent=absent)
        found.append(scores(confusions[chosen, outside].sum(0), absent=absent))
        selected.append(chosen)
        chosen_by.append(val_miou)
    spread = statistics.pstdev(score.miou for score in found)
    return Result(_mean_scores(found), tuple(selected), statistics.fmean(chosen_by), spread)


def _best(confusions: torch.Tensor, *, absent: Absent) -> tuple[int, float]:
    found = [scores(counts, absent=absent).miou for counts in confusions]
    return found.index(max(found)), max(found)


def _mean_scores(found: Sequence[Scores]) -> Scores:
    def mean(values: Sequence[float | None]) -> float | None:
        kept = [value for value in values if value is not None]
        return statistics.fmean(kept) if kept else None

    return Scores(
        miou=statistics.fmean(score.miou for score in found),
        foreground_miou=statistics.fmean(score.foreground_miou for score in found),
        weighted_miou=statistics.fmean(score.weighted_miou for score in found),
        pixel_accuracy=statistics.fmean(score.pixel_accuracy for score in found),
        per_class=tuple(
            mean(column) for column in zip(*(score.per_class for score in found), strict=True)
        ),
    )
