"""SimSiam: two views predict each other, with no negatives and no second encoder.

Chen and He 2020 (2011.10566), as in the official code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from raysweep import collective, micro, rng
from raysweep.learner import identity
from raysweep.nets.layers import training_format
from raysweep.nets.resnet import Trunk, zero_init_residuals
from raysweep.represent import contrastive
from raysweep.represent.config import RepresentConfig
from raysweep.represent.contrastive import Images
from raysweep.represent.heads import simsiam_predictor, simsiam_projector

LR_BATCH = 256
"""The learning rate of the config belongs to this batch; it scales linearly (section 4)."""


class Siamese(nn.Module):
    """Trunk, projector, predictor; one forward for both views so that it can be wrapped."""

    def __init__(
        self, trunk: Trunk, projector: nn.Module, predictor: nn.Module, *, groups: int
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.projector = projector
        self.predictor = predictor
        self.groups = groups

    def forward(
        self, first: torch.Tensor, second: torch.Tensor, groups: int | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Map two ``(batch, 3, height, width)`` to p1, p2, z1, z2, each ``(batch, dim)``.

        The projections z carry no gradient.

        Args:
            first: one view of each image.
            second: the other one.
            groups: groups in place of the network's own number, for a part of a batch.
        """
        groups = groups or self.groups
        found = []
        for pair in zip(
            contrastive.in_groups(first, groups),
            contrastive.in_groups(second, groups),
            strict=True,
        ):
            projections = [self.projector(self.trunk(view)) for view in pair]
            predictions = [self.predictor(z) for z in projections]
            found.append([*predictions, *(z.detach() for z in projections)])
        return tuple(torch.cat(rows) for rows in zip(*found, strict=True))


class Simsiam:
    """Learner of SimSiam.

    Batch-norm statistics: on GPUs they are taken over all workers, as in the official code. On
    CPUs torch cannot synchronise them, so each worker's are its own: two workers with half the
    batch equal one worker with ``bn_groups = 2``, not one with ``bn_groups = 1``. A step in parts
    (:mod:`raysweep.micro`) keeps groups whole if there are as many as parts; else each part is one.

    Args:
        config: settings.
        device: where the network lives.
        wrap: receives the whole network, e.g. to make it data-parallel.
    """

    def __init__(
        self,
        config: RepresentConfig,
        *,
        device: torch.device | str,
        wrap: Callable[[nn.Module], nn.Module] = identity,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.net = self._build_net()
        self.memory_format = training_format(self.net, self.device)
        self.net.to(memory_format=self.memory_format)
        self.forward = wrap(self.net)
        self.optimizer = contrastive.build_optimizer(
            config,
            [
                {"params": [*self.net.trunk.parameters(), *self.net.projector.parameters()]},
                {"params": self.net.predictor.parameters()},
            ],
        )
        self.steps_taken = 0

    def _build_net(self) -> Siamese:
        config = self.config
        trunk = contrastive.seeded_trunk(config)
        zero_init_residuals(trunk)
        with rng.seeded(config.seed, "head"):
            projector = simsiam_projector(trunk.channels[-1], dim=config.simsiam.dim)
            predictor = simsiam_predictor(
                config.simsiam.dim, hidden=config.simsiam.predictor_hidden
            )
        net = Siamese(trunk, projector, predictor, groups=config.bn_groups)
        if self.device.type == "cuda" and collective.size() > 1:
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return net.to(self.device)

    def step(self, batch: Images) -> dict[str, torch.Tensor]:
        """Update once.

        Args:
            batch: ``{"image": (batch / workers, 3, height, width) uint8}``.

        Returns:
            ``loss`` in [-1, 1], ``std`` (see :func:`spread`), ``lr``; of this worker's images.

        Raises:
            ValueError: wrong number of images, or ``steps`` have been taken.
        """
        config = self.config
        views = contrastive.two_views(
            batch["image"],
            config=config,
            step=self.steps_taken,
            device=self.device,
            memory_format=self.memory_format,
        )
        group = len(views[0]) // config.bn_groups
        projections: list[torch.Tensor] = []

        def loss_of(part: slice) -> tuple[torch.Tensor, micro.Metrics]:
            own = [view[part] for view in views]
            with contrastive.autocast(config, device=self.device):
                outputs = self.forward(*own, groups=max(1, len(own[0]) // group))
            p1, p2, z1, z2 = (output.float() for output in outputs)
            projections.append(z1)
            loss = negative_cosine(p1, z2) / 2 + negative_cosine(p2, z1) / 2
            return loss, {"loss": loss.detach()}

        lr = self._set_learning_rate()
        self.optimizer.zero_grad()
        parts = micro.parts(len(views[0]), least=2, group=group)
        found = micro.accumulate(parts, loss_of, wrapped=self.forward)
        self.optimizer.step()
        self.steps_taken += 1
        return {**found, "std": spread(torch.cat(projections)), "lr": torch.tensor(lr)}

    def _set_learning_rate(self) -> float:
        config = self.config
        peak = config.lr * config.batch / LR_BATCH
        lr = contrastive.learning_rate(self.steps_taken, peak=peak, config=config)
        encoder, predictor = self.optimizer.param_groups
        encoder["lr"] = lr
        predictor["lr"] = peak if config.simsiam.constant_predictor_lr else lr
        return lr

    def trunk_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the tensors of the trunk: the product of training."""
        return contrastive.trunk_state(self.net.trunk)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_taken = state["step"]


def negative_cosine(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return minus the mean cosine of the rows (2011.10566 eq. 1); no gradient to the targets.

    Args:
        predictions: ``(batch, dim)``.
        targets: ``(batch, dim)``.

    Returns:
        A scalar in [-1, 1].
    """
    return -F.cosine_similarity(predictions, targets.detach(), dim=1).mean()


def spread(projections: torch.Tensor) -> torch.Tensor:
    """Return the collapse indicator (2011.10566 section 4.1).

    Args:
        projections: ``(batch, dim)``.

    Returns:
        Mean over channels of the standard deviation of the unit-length projections, times
        ``sqrt(dim)``: about 1 when healthy, 0 when all images have the same projection.
    """
    unit = F.normalize(projections, dim=1)
    return unit.std(0).mean() * math.sqrt(projections.shape[1])
