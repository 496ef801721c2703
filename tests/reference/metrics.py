"""Dataset-level scores from label lists, class by class and pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

Images = Sequence[Sequence[Sequence[int]]]  # image, row, column
EPSILON = 1e-8  # of the released code; smaller than any pixel count


def pixels(images: Images) -> list[int]:
    """All labels of a split, image after image."""
    return [label for image in images for row in image for label in row]


def confusion(prediction: Images, truth: Images, num_classes: int) -> list[list[int]]:
    """counts[true class][predicted class] over a split."""
    counts = [[0] * num_classes for _ in range(num_classes)]
    for predicted, true in zip(pixels(prediction), pixels(truth), strict=True):
        counts[true][predicted] += 1
    return counts


def class_iou(prediction: Images, truth: Images, num_classes: int) -> list[float | None]:
    """IoU per class; None where the class occurs neither in truth nor in prediction."""
    found: list[float | None] = []
    for wanted in range(num_classes):
        intersection = union = 0
        for predicted, true in zip(pixels(prediction), pixels(truth), strict=True):
            intersection += predicted == wanted and true == wanted
            union += predicted == wanted or true == wanted
        found.append(intersection / (union + EPSILON) if union else None)
    return found


def summary(
    prediction: Images, truth: Images, num_classes: int, *, absent: str
) -> dict[str, float]:
    """The four scores of a split."""
    by_class = class_iou(prediction, truth, num_classes)
    if absent == "zero":
        kept = [(c, iou or 0.0) for c, iou in enumerate(by_class)]
    else:
        kept = [(c, iou) for c, iou in enumerate(by_class) if iou is not None]
    foreground = [iou for c, iou in kept if c > 0]
    labels, guesses = pixels(truth), pixels(prediction)
    weighted = sum(labels.count(c) / len(labels) * iou for c, iou in kept)
    right = sum(a == b for a, b in zip(labels, guesses, strict=True))
    return {
        "miou": sum(iou for _, iou in kept) / len(kept),
        "foreground_miou": sum(foreground) / len(foreground) if foreground else 0.0,
        "weighted_miou": weighted,
        "pixel_accuracy": right / len(labels),
    }
