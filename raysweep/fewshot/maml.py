"""Learning to annotate by meta-learning: the labelled loss after steps on the annotator's labels.

LAGM algorithm 2, in the paper only. Its inner learning rate is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch.func import functional_call

from raysweep import collective
from raysweep.config import Config
from raysweep.fewshot.label_gradients import ByLabels, mean_gradients, soft_cross_entropy
from raysweep.fewshot.segmentors import Matched
from raysweep.nets.deeplab import DeepLab
from raysweep.nets.unet import UNet


class MamlConfig(Config):
    """The inner steps.

    Attributes:
        inner_steps: gradient steps of the segmentor on generated images; 1 or 2 in the paper.
        inner_lr: their learning rate; by default the segmentor's.
    """

    inner_steps: int = Field(default=1, ge=1)
    inner_lr: float = Field(default=1e-3, gt=0)


def maml_gradient(
    network: DeepLab | UNet,
    images: torch.Tensor,
    labels: torch.Tensor,
    held_out: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
    *,
    block: Matched,
    config: MamlConfig,
) -> ByLabels:
    """Return the labelled loss after the inner steps, and its derivative by the labels.

    The second-order derivative goes back through one inner step after the other, each with its own
    graph; in between, what belongs to the parameters is averaged over the workers. All inner steps
    see the same generated images.

    Args:
        network: the segmentor; its own parameters stay as they are.
        images: ``(batch, 3, height, width)`` float, normalised; this worker's.
        labels: ``(batch, classes, height, width)``, adding up to 1 over the classes.
        held_out: from the block's parameters, by name, to the loss on this worker's labelled
            images.
        block: what the inner steps change.
        config: the inner steps.
    """
    labels = labels.detach().requires_grad_()
    theta = {name: each.detach().requires_grad_() for name, each in block.parameters.items()}
    taken = []
    for _ in range(config.inner_steps):
        loss = soft_cross_entropy(functional_call(network, theta, (images,)), labels)
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        taken.append((list(theta.values()), gradients))
        means = mean_gradients(gradients)
        theta = {
            name: (theta[name].detach() - config.inner_lr * mean).requires_grad_()
            for name, mean in zip(theta, means, strict=True)
        }
    meta = held_out(theta)
    adjoint = mean_gradients(torch.autograd.grad(meta, list(theta.values())))
    by_labels = torch.zeros_like(labels)
    for parameters, gradients in reversed(taken):
        vectors = [-config.inner_lr * each for each in adjoint]
        own, *moved = torch.autograd.grad(
            gradients, [labels, *parameters], vectors, materialize_grads=True
        )
        by_labels = by_labels + own
        adjoint = [a + m for a, m in zip(adjoint, mean_gradients(moved), strict=True)]
    return ByLabels(collective.mean(meta.detach()), by_labels.detach())
