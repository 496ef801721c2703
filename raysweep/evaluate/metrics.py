"""Dataset-level intersection over union, as the papers compute it.

Intersections and unions are summed over all images of a split before they are divided
(DatasetGAN's and GanOrCon's released code); it is not a mean of per-image scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Absent = Literal["zero", "skip"]


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1].

    Attributes:
        miou: mean IoU over all classes, background included.
        foreground_miou: mean IoU over classes 1 and up (LAGM's FG-mIoU).
        weighted_miou: IoU weighted by each class's share of true pixels (GanOrCon 4.3).
        pixel_accuracy: share of pixels labelled correctly.
        per_class: IoU of each class; None for an absent class that is skipped.
    """

    miou: float
    foreground_miou: float
    weighted_miou: float
    pixel_accuracy: float
    per_class: tuple[float | None, ...]


def confusion(prediction: torch.Tensor, truth: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Count pixels by true and predicted class, image by image.

    Args:
        prediction: ``(count, height, width)`` class indices, any integer type.
        truth: the same shape.
        num_classes: number of classes.

    Returns:
        ``(count, num_classes, num_classes)`` int64 on the CPU; rows are truth, columns prediction.

    Raises:
        ValueError: shapes differ, or a label is out of range.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, truth {tuple(truth.shape)}"
        )
    prediction, truth = prediction.cpu().long(), truth.cpu().long()
    for name, labels in (("prediction", prediction), ("truth", truth)):
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if len(outside):
            raise ValueError(
                f"{name} holds label {int(outside[0])}: allowed are 0 to {num_classes - 1}"
            )
    count, size = len(truth), num_classes**2
    offset = size * torch.arange(count).view(-1, 1, 1)
    cells = (offset + truth * num_classes + prediction).flatten()
    return torch.bincount(cells, minlength=count * size).view(count, num_classes, num_classes)


def mean_iou(
    labels: torch.Tensor, truth: torch.Tensor, num_classes: int, *, absent: Absent
) -> float:
    """Return the dataset-level mIoU of labels ``(count, height, width)`` against their truth."""
    return scores(confusion(labels, truth, num_classes).sum(0), absent=absent).miou


def scores(confusion: torch.Tensor, *, absent: Absent) -> Scores:
    """Score a confusion matrix summed over a split.

    Args:
        confusion: ``(num_classes, num_classes)`` counts; rows are truth, columns prediction.
        absent: what a class counts that occurs neither in truth nor in prediction: ``zero`` as in
            the papers, whose denominator is always the number of classes, or ``skip``.

    Raises:
        ValueError: there is no pixel at all.
    """
    counts = confusion.double()
    total = counts.sum()
    if total == 0:
        raise ValueError("the confusion matrix is empty: no pixel was scored")
    hits, truth, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    union = truth + predicted - hits
    iou = hits / union.clamp(min=1)
    counted = (union > 0) | (absent == "zero")
    foreground = counted.clone()
    foreground[0] = False
    return Scores(
        miou=_mean(iou[counted]),
        foreground_miou=_mean(iou[foreground]),
        weighted_miou=float((truth / total * iou).sum()),
        pixel_accuracy=float(hits.sum() / total),
        per_class=tuple(
            float(value) if kept else None for value, kept in zip(iou, counted, strict=True)
        ),
    )


def _mean(values: torch.Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0
