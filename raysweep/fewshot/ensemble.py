"""Several annotators at once: a majority of labels, and where they disagree.

DatasetGAN (2104.06490) section 3.2 and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

TOP_PART = 10  # an image is scored by its most disputed tenth
ALWAYS_CERTAIN = 30  # the most certain images that the released filter drops as well


class Ensemble(nn.Module):
    """Annotators with the same classes on the same levels.

    Args:
        members: modules that map ``(levels, px)`` to ``(batch, classes, px, px)``.

    Raises:
        ValueError: there is no member.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Return the scores of all members: ``(members, batch, classes, px, px)``."""
        return torch.stack([member(levels, px) for member in self.members])


class Majority(nn.Module):
    """An ensemble as one annotator, whose scores are the members' votes.

    Args:
        ensemble: the members.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Return the number of votes ``(batch, classes, px, px)`` float."""
        return votes(self.ensemble(levels, px)).float()


def votes(logits: torch.Tensor) -> torch.Tensor:
    """Count the members that choose each label.

    Args:
        logits: ``(members, batch, classes, height, width)``.

    Returns:
        ``(batch, classes, height, width)`` int32.
    """
    chosen = logits.argmax(2).movedim(0, 1)
    counts = torch.zeros(logits.shape[1:], dtype=torch.int32, device=logits.device)
    return counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.int32))


def jensen_shannon(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence of the members: ``H(mean p) - mean H(p)``.

    Args:
        probabilities: ``(members, batch, classes, height, width)``, summing to 1 over classes.

    Returns:
        ``(batch, height, width)`` in [0, ln(members)], natural logarithm.
    """
    of_mean = torch.special.entr(probabilities.mean(0)).sum(1)
    mean_of = torch.special.entr(probabilities).sum(2).mean(0)
    divergence: torch.Tensor = of_mean - mean_of
    return divergence.clamp(min=0)  # rounding may leave a tiny negative number


def image_uncertainty(divergence: torch.Tensor) -> torch.Tensor:
    """Return the mean over the top tenth of an image's pixels, rounded down, at least one.

    Args:
        divergence: ``(batch, height, width)``.

    Returns:
        ``(batch,)``.
    """
    pixels = divergence.flatten(1)
    count = max(pixels.shape[1] // TOP_PART, 1)
    return pixels.topk(count, dim=1).values.mean(1)


def keep_certain(scores: torch.Tensor, portion: float, *, released: bool) -> torch.Tensor:
    """Choose the images of a synthetic set by their uncertainty.

    Args:
        scores: ``(images,)``, one uncertainty each.
        portion: the share of images to drop, in [0, 1).
        released: as the released code does it: with ``f = floor(images * portion)`` images to drop
            the window of kept ones is moved up by 30, so that the 30 most certain go as well and
            ``f - 30`` of the most uncertain. Else the ``f`` most uncertain go, as in the paper.

    Returns:
        ``(kept,)`` int64 indices, the most certain first; equals keep their order.

    Raises:
        ValueError: ``portion`` is out of range, or no image would be left.
    """
    if not 0 <= portion < 1:
        raise ValueError(f"portion = {portion}: a share in [0, 1) of the images is dropped")
    order = scores.argsort(stable=True)
    first = ALWAYS_CERTAIN if released else 0
    kept = order[first : len(order) - int(len(order) * portion) + first]
    if not len(kept):
        raise ValueError(
            f"no image is left of {len(order)}: make more images or set released = False, which "
            f"keeps the {ALWAYS_CERTAIN} most certain"
        )
    return kept
