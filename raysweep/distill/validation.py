"""How well a student labels images whose labels are known."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from raysweep.data.joint import resized, resized_labels
from raysweep.distill.student import PREDICT_BATCH, Student


@torch.no_grad()
def validation_loss(student: Student, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of a student's pixels, at the resolution of its training.

    Args:
        student: as it is now.
        images: ``(count, 3, height, width)`` uint8.
        masks: ``(count, height, width)`` uint8.

    Returns:
        0-dimensional, on the student's device.
    """
    px, total = student.config.resolution, torch.zeros((), device=student.device)
    student.network.eval()
    for image, mask in zip(images.split(PREDICT_BATCH), masks.split(PREDICT_BATCH), strict=True):
        labels = resized_labels(mask.to(student.device), px=px)
        x = resized(image.to(student.device), px=px)
        logits = student.network(x.contiguous(memory_format=student.memory_format)).float()
        total += F.cross_entropy(logits, labels) * len(image)
    student.network.train()
    return total / len(images)
