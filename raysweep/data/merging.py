"""What the numbers of a mask mean, and how classes are merged into fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Colour = tuple[int, int, int]
MaskT = TypeVar("MaskT", npt.NDArray[np.uint8], torch.Tensor)

MAX_CLASSES = 256  # masks are uint8


@dataclass(frozen=True)
class LabelSet:
    """The classes of a mask.

    Attributes:
        name: key in ``LABEL_SETS``.
        classes: names in index order; index 0 is the background.
        palette: one RGB colour of 0 to 255 per class.
        flip_pairs: pairs of indices that trade places when an image is mirrored.

    Raises:
        ValueError: classes repeat, colours do not match the classes, or a pair is not a pair.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError(f"classes of {self.name!r} = {self.classes}; give distinct names")
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"palette of {self.name!r} has {len(self.palette)} colours; "
                f"give one for each of the {len(self.classes)} classes"
            )
        paired = [index for pair in self.flip_pairs for index in pair]
        if len(set(paired)) != len(paired) or not set(paired) <= set(range(len(self.classes))):
            raise ValueError(
                f"flip_pairs of {self.name!r} = {self.flip_pairs}; "
                f"each index from 0 to {len(self.classes) - 1} may occur once"
            )


@dataclass(frozen=True)
class Merge:
    """A map from the classes of one label set to those of another.

    Attributes:
        name: key in ``MERGES``.
        source: classes going in.
        target: classes coming out.
        table: the target's index for each index of the source.

    Raises:
        ValueError: the table does not have one valid target for every source class.
    """

    name: str
    source: LabelSet
    target: LabelSet
    table: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.table) != len(self.source.classes):
            raise ValueError(
                f"table of {self.name!r} has {len(self.table)} entries; "
                f"{self.source.name!r} has {len(self.source.classes)} classes"
            )
        wrong = sorted(set(self.table) - set(range(len(self.target.classes))))
        if wrong:
            raise ValueError(
                f"table of {self.name!r} holds {wrong[0]}; classes of {self.target.name!r} are "
                f"0 to {len(self.target.classes) - 1}"
            )


def merge(mask: MaskT, rule: Merge) -> MaskT:
    """Translate a mask to the target's classes.

    Args:
        mask: uint8 labels of the source, any shape, numpy array or tensor on any device.
        rule: which classes become which.

    Returns:
        uint8 labels of the target, of the same shape, type and device.

    Raises:
        ValueError: the mask is not uint8 or holds a label that the source does not have.
    """
    if mask.dtype not in (np.uint8, torch.uint8):
        raise ValueError(f"mask is {mask.dtype}; labels are uint8")
    highest = int(mask.max()) if 0 not in mask.shape else 0
    if highest >= len(rule.table):
        raise ValueError(
            f"mask holds label {highest}; {rule.source.name!r} has labels "
            f"0 to {len(rule.table) - 1}"
        )
    if isinstance(mask, torch.Tensor):
        table = torch.tensor(rule.table, dtype=torch.uint8, device=mask.device)
        return table[mask.long()]
    return np.array(rule.table, dtype=np.uint8)[mask]


def merge_name(source: LabelSet, target: LabelSet) -> str:
    """Return the key under which the merge is found in ``MERGES``."""
    return f"{source.name}_to_{target.name}"


def compose(first: Merge, second: Merge) -> Merge:
    """Return the merge that does ``first``, then ``second``.

    Raises:
        ValueError: ``first`` does not end where ``second`` begins.
    """
    if first.target != second.source:
        raise ValueError(
            f"{first.name!r} ends in {first.target.name!r}, but {second.name!r} begins "
            f"with {second.source.name!r}"
        )
    table = tuple(second.table[index] for index in first.table)
    name = merge_name(first.source, second.target)
    return Merge(name, first.source, second.target, table)


def palette(num_classes: int) -> tuple[Colour, ...]:
    """Return distinct colours, black first: the colour map of the PASCAL VOC development kit.

    The bits of the class index are dealt to red, green and blue in turn, from the top down, so
    colours do not depend on how many classes there are.

    Raises:
        ValueError: not between 1 and 256 classes.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes = {num_classes}; masks hold 1 to {MAX_CLASSES} classes")
    return tuple(
        (_deal(index, channel=0), _deal(index, channel=1), _deal(index, channel=2))
        for index in range(num_classes)
    )


def _deal(index: int, *, channel: int) -> int:
    return sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(3))
