"""Moving images and scoring what stays in sight, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable

Plane = list[list[int]]


def moved(plane: Plane, dx: int, dy: int, *, outside: int | None) -> Plane:
    """Uncovered pixels get ``outside``, or what the nearest pixel of the content has."""
    height, width = len(plane), len(plane[0])
    out = []
    for y in range(height):
        row = []
        for x in range(width):
            v, u = y - dy, x - dx
            if outside is not None and not (0 <= v < height and 0 <= u < width):
                row.append(outside)
            else:
                row.append(plane[min(max(v, 0), height - 1)][min(max(u, 0), width - 1)])
        out.append(row)
    return out


def miou(
    labels: Callable[[int], list[Plane]],
    masks: list[Plane],
    shift: int,
    *,
    shifts: list[int],
    num_classes: int,
) -> float:
    """Over the content that no shift moves out of sight; classes that are not there are skipped.

    Args:
        labels: shift to the labels of the moved images.
        masks: truth of the images where they were.
        shift: which labels are scored.
        shifts: all of the curve.
        num_classes: number of classes.
    """
    width = len(masks[0][0])
    both, either = [0] * num_classes, [0] * num_classes
    for found, mask in zip(labels(shift), masks, strict=True):
        for y in range(len(mask)):
            for x in range(width):
                if not all(0 <= x + s < width for s in shifts):
                    continue
                true, said = mask[y][x], found[y][x + shift]
                for c in range(num_classes):
                    both[c] += true == c and said == c
                    either[c] += true == c or said == c
    found = [b / e for b, e in zip(both, either, strict=True) if e]
    return sum(found) / len(found)
