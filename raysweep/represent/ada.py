"""Adaptive discriminator augmentation: the pipeline "bgc" and the control of its strength.

Karras et al. 2020 (2006.06676), section 3 and appendix B. Drawing the random parameters is apart
from applying them, as in ``raysweep.data.augment``: workers that share a batch draw for the whole
batch and apply their own part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from raysweep import collective
from raysweep.represent import ada_draw, ada_warp
from raysweep.represent.ada_config import AdaConfig


@dataclass(frozen=True)
class AugmentationDraw:
    """Transforms of a batch; see :func:`draw_augmentation`.

    Attributes:
        inverse: ``(batch, 3, 3)`` float64 on the CPU, from ``(x, y, 1)`` of the augmented image to
            that of the original, in px from the centre of the image, x to the right, y down.
        colour: ``(batch, 4, 4)`` float64 on the CPU, from ``(red, green, blue, 1)`` of the original
            to that of the augmented image.
    """

    inverse: torch.Tensor
    colour: torch.Tensor

    def part(self, rows: slice) -> AugmentationDraw:
        """Return the transforms of some of the images."""
        return AugmentationDraw(inverse=self.inverse[rows], colour=self.colour[rows])


def draw_augmentation(
    batch: int,
    p: float,
    *,
    height: int,
    width: int,
    config: AdaConfig,
    generator: torch.Generator,
) -> AugmentationDraw:
    """Draw the transforms of a batch; each is made with probability ``p``, per image.

    The same numbers are drawn whatever ``p`` and ``config`` are, so switching one group off leaves
    the others as they were.

    Args:
        batch: number of images, of all workers that share the batch.
        p: probability of each transform; above 1 the same as 1.
        height: height of the images in px.
        width: width of the images in px.
        config: which groups of transforms are made.
        generator: source of randomness, on the CPU.

    Returns:
        One geometric and one colour matrix per image, exactly the identity where nothing is made.

    Raises:
        ValueError: ``p`` is negative or not a number.
    """
    strengths = ada_draw.draw_strengths(
        batch, p, height=height, width=width, config=config, generator=generator
    )
    return AugmentationDraw(
        inverse=ada_draw.inverse_geometry(strengths), colour=ada_draw.colour(strengths)
    )


def apply_augmentation(images: torch.Tensor, draw: AugmentationDraw) -> torch.Tensor:
    """Move, turn, stretch the images, then change their colours.

    Differentiable any number of times with respect to the images, and linear in them except for
    the constant that brightness adds. Half precision is computed in float32.

    Args:
        images: ``(batch, 3, height, width)`` float, nominally in [-1, 1]; at least 2 x 2 px.
        draw: one set of transforms per image, drawn for this height and width.

    Returns:
        The images' shape and dtype, not clamped; images without any transform are returned as
        they are, bit for bit.

    Raises:
        ValueError: wrong shape, or not as many transforms as images.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2:
        raise ValueError(
            f"images = {tuple(images.shape)}: expected (batch, 3, height, width), at least 2 x 2 px"
        )
    if len(draw.inverse) != len(images):
        raise ValueError(
            f"draw of {len(draw.inverse)} images for {len(images)} images: draw for the whole "
            "batch and take this worker's part()"
        )
    with torch.autocast(images.device.type, enabled=False):
        wide = images if images.dtype == torch.float64 else images.float()
        wide = _where_changed(wide, draw.inverse, ada_warp.affine)
        return _where_changed(wide, draw.colour, recolour).to(images.dtype)


def recolour(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply homogeneous matrices to the colour of each pixel.

    Args:
        images: ``(batch, 3, height, width)`` float.
        matrix: ``(batch, 4, 4)`` of the images' dtype, on their device.

    Returns:
        The images' shape.
    """
    pixels = torch.baddbmm(matrix[:, :3, 3:], matrix[:, :3, :3], images.flatten(2))
    return pixels.view(images.shape)


def _where_changed(
    images: torch.Tensor,
    matrices: torch.Tensor,
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    # The matrices are on the CPU: finding out which are the identity does not wait for the device.
    changed = (matrices != torch.eye(matrices.shape[-1], dtype=matrices.dtype)).any(2).any(1)
    if not changed.any():
        return images
    matrices = matrices[changed].to(images)
    if changed.all():
        return change(images, matrices)
    rows = changed.nonzero()[:, 0].to(images.device)
    return images.index_copy(0, rows, change(images.index_select(0, rows), matrices))


class AdaController:
    """The augmentation probability p, steered by how sure the discriminator is of real images.

    ``r = mean(sign(D(real)))`` near 1 means that it has learnt the training set by heart: then p
    rises. The state is the same on all workers.

    Args:
        config: settings.
    """

    def __init__(self, config: AdaConfig) -> None:
        self.config = config
        self._p = config.initial_p
        self.steps_taken = 0
        self._sums = torch.zeros(2)  # of signs, of images; since the last update

    @property
    def p(self) -> float:
        """Probability of each transform, 0 when the augmentation is not enabled."""
        return self._p if self.config.enabled else 0.0

    def observe(self, real_logits: torch.Tensor) -> None:
        """Take note of the discriminator's answers to real images, each image once.

        Args:
            real_logits: ``(batch, 1)`` float of this worker's images, positive for "real".
        """
        if not self.config.enabled:
            return
        signs = real_logits.detach().float().sign()
        sums = torch.stack([signs.sum(), signs.new_tensor(float(len(signs)))])
        self._sums = self._sums.to(sums.device) + collective.mean(sums) * collective.size()

    def step(self) -> None:
        """Count one discriminator step; every ``interval`` of them, update p.

        Raises:
            ValueError: an update is due and no image was observed.
        """
        self.steps_taken += 1
        if not self.config.enabled or self.steps_taken % self.config.interval:
            return
        signs, images = self._sums.tolist()
        if not images:
            raise ValueError("no image was observed since the last update: call observe() first")
        ratio = signs / images
        direction = (ratio > self.config.target) - (ratio < self.config.target)
        moved = self._p + direction * images / (self.config.speed_kimg * 1000)
        most = math.inf if self.config.maximum_p is None else self.config.maximum_p
        self._p = min(max(0.0, moved), most)
        self._sums = torch.zeros_like(self._sums)

    def state_dict(self) -> dict[str, Any]:
        """Return p, the running sums and what counts them."""
        return {
            "p": self._p,
            "steps_taken": self.steps_taken,
            "sums": self._sums.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self._p, self.steps_taken = state["p"], state["steps_taken"]
        self._sums = state["sums"].clone()
