"""The derivative of the matching distance by the soft labels that the annotator gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from raysweep import collective
from raysweep.fewshot.head_gradient import features_of, head_gradient, head_tangent
from raysweep.fewshot.matching_distance import Normaliser, matching_distance
from raysweep.fewshot.segmentors import Matched
from raysweep.nets.deeplab import DeepLab
from raysweep.nets.unet import UNet


class ByLabels(NamedTuple):
    """A loss, the same on every worker, and its derivative by this worker's soft labels.

    The derivative is that of the workers' sum divided by their number: average what follows from
    it over the workers. It is determined up to a constant over the classes of a pixel, which a
    softmax does not feel.
    """

    loss: torch.Tensor
    by_labels: torch.Tensor


def soft_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean over pixels of ``-sum_c labels_c log softmax(logits)_c``.

    Args:
        logits: ``(batch, classes, height, width)``.
        labels: the same shape, adding up to 1 over the classes.
    """
    return -(labels * F.log_softmax(logits, dim=1)).sum(1).mean()


def mean_gradients(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return gradients averaged over the workers, detached."""
    return [collective.mean(each.detach()) for each in gradients]


def labelled_gradient(
    network: DeepLab | UNet, images: torch.Tensor, masks: torch.Tensor, *, block: Matched
) -> list[torch.Tensor]:
    """Return the gradient of the cross-entropy by the block's weights, of all workers' images.

    Args:
        network: the segmentor.
        images: ``(batch, 3, height, width)`` float, normalised.
        masks: ``(batch, height, width)`` int64.
        block: what is matched.
    """
    loss = F.cross_entropy(network(images), masks)
    return mean_gradients(torch.autograd.grad(loss, list(block.weights.values())))


def matching_gradient(
    network: DeepLab | UNet,
    images: torch.Tensor,
    labels: torch.Tensor,
    target: Sequence[torch.Tensor],
    *,
    block: Matched,
    normaliser: Normaliser,
) -> ByLabels:
    """Return the distance between the gradient on generated images and another, and its derivative.

    The derivative goes back through the gradient's graph, except for a last, linear layer, which
    has a closed form and needs no graph.

    Args:
        network: the segmentor; of its parameters, at most those of the block require a gradient.
        images: ``(batch, 3, height, width)`` float, normalised; this worker's.
        labels: ``(batch, classes, height, width)``, adding up to 1 over the classes.
        target: of :func:`labelled_gradient`.
        block: what is matched.
        normaliser: of the distance.
    """
    labels = labels.detach().requires_grad_()
    deep = {name: weight for name, weight in block.weights.items() if name != block.last}
    with features_of(network.classes) as features, torch.set_grad_enabled(bool(deep)):
        logits = network(images)
    found: dict[str, torch.Tensor] = {}
    if deep:
        loss = soft_cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, list(deep.values()), create_graph=True)
        found |= zip(deep, gradients, strict=True)
    if block.last:
        residual = logits.detach().softmax(1) - labels.detach()
        found[block.last] = head_gradient(residual, features[0])
    ours = [each.requires_grad_() for each in mean_gradients([found[n] for n in block.weights])]
    distance = matching_distance(ours, target, normaliser=normaliser, tensors=len(block.parameters))
    directions = dict(zip(block.weights, torch.autograd.grad(distance, ours), strict=True))
    by_labels = torch.zeros_like(labels)
    if deep:
        vectors = [directions[name] for name in deep]
        by_labels += torch.autograd.grad([found[name] for name in deep], labels, vectors)[0]
    if block.last:
        size, pixels = (labels.shape[2], labels.shape[3]), labels.numel() // labels.shape[1]
        by_labels -= head_tangent(directions[block.last], features[0], size) / pixels
    return ByLabels(distance.detach(), by_labels.detach())
