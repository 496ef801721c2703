"""MoCo v2: instance discrimination against a queue of earlier keys.

He et al. 2020 (1911.05722), Chen et al. 2020 (2003.04297): move the key encoder, encode shuffled
keys, encode queries, loss, then enqueue. The official code encodes the queries first, which gives
the same numbers and holds their activations for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from raysweep import collective, micro, rng
from raysweep.learner import identity
from raysweep.nets.layers import training_format
from raysweep.nets.resnet import Trunk
from raysweep.represent import contrastive
from raysweep.represent.config import RepresentConfig
from raysweep.represent.contrastive import Images
from raysweep.represent.heads import moco_head


class Encoder(nn.Module):
    """Trunk and head; batch-norm statistics are taken per group of the batch."""

    def __init__(self, trunk: Trunk, head: nn.Module, *, groups: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.groups = groups

    def forward(self, images: torch.Tensor, groups: int | None = None) -> torch.Tensor:
        """Map ``(batch, 3, height, width)`` to ``(batch, dim)``.

        Args:
            images: the batch, or a part of one.
            groups: groups in place of the network's own number, for a part of a batch.
        """
        grouped = contrastive.in_groups(images, groups or self.groups)
        return torch.cat([self.head(self.trunk(group)) for group in grouped])


class Moco:
    """Learner of MoCo v2.

    Running batch-norm statistics are those of this worker's images. Among several workers they
    differ, and one of them (by convention the first) is kept, as in the official code. A step in
    parts (:mod:`raysweep.micro`) keeps the groups of batch norm whole if there are as many as
    parts; else each part is one.

    Args:
        config: settings.
        device: where the networks live.
        wrap: receives the query encoder, e.g. to make it data-parallel.
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
        self.query, self.key = self._build_encoder(), self._build_encoder()
        self.memory_format = training_format(self.query, self.device)
        for encoder in (self.query, self.key):
            encoder.to(memory_format=self.memory_format)
        self.key.requires_grad_(False)
        self.encode = wrap(self.query)
        self.optimizer = contrastive.build_optimizer(config, [{"params": self.query.parameters()}])
        noise = torch.randn(
            (config.moco.queue, config.moco.dim), generator=rng.generator(config.seed, "queue")
        )
        self.queue = F.normalize(noise, dim=1).to(self.device)
        self.pointer = 0
        self.steps_taken = 0

    def _build_encoder(self) -> Encoder:
        config = self.config
        trunk = contrastive.seeded_trunk(config)
        with rng.seeded(config.seed, "head"):
            head = moco_head(
                trunk.channels[-1],
                hidden=config.moco.hidden,
                dim=config.moco.dim,
                batch_norm=config.moco.head_batch_norm,
            )
        return Encoder(trunk, head, groups=config.bn_groups).to(self.device)

    def step(self, batch: Images) -> dict[str, torch.Tensor]:
        """Update once.

        Args:
            batch: ``{"image": (batch / workers, 3, height, width) uint8}``.

        Returns:
            ``loss`` (to be compared with ``ln(queue + 1)``), ``accuracy`` in [0, 1] of telling
            the positive from all negatives, ``lr``; of this worker's images.

        Raises:
            ValueError: wrong number of images, or ``steps`` have been taken.
        """
        config = self.config
        query_view, key_view = contrastive.two_views(
            batch["image"],
            config=config,
            step=self.steps_taken,
            device=self.device,
            memory_format=self.memory_format,
        )
        follow(self.key, self.query, momentum=config.moco.momentum)
        with contrastive.autocast(config, device=self.device):
            keys = self._encode_keys(key_view)
        own = collective.share(keys)

        lr = contrastive.learning_rate(self.steps_taken, peak=config.lr, config=config)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        found = micro.accumulate(
            self._parts(),
            lambda part: self._loss(query_view[part], own[part]),
            wrapped=self.encode,
        )
        self.optimizer.step()
        self._enqueue(keys)
        self.steps_taken += 1
        return {**found, "lr": torch.tensor(lr)}

    @property
    def _group(self) -> int:
        """Images that share batch-norm statistics."""
        return self.config.batch // collective.size() // self.config.bn_groups

    def _parts(self) -> list[slice]:
        return micro.parts(self._group * self.config.bn_groups, least=2, group=self._group)

    def _loss(self, views: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, micro.Metrics]:
        config, groups = self.config, max(1, len(views) // self._group)
        with contrastive.autocast(config, device=self.device):
            queries = F.normalize(self.encode(views, groups=groups).float(), dim=1)
        logits = similarities(queries, keys, queue=self.queue) / config.moco.temperature
        loss = F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))
        accuracy = (logits.argmax(1) == 0).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    @torch.no_grad()
    def _encode_keys(self, views: torch.Tensor) -> torch.Tensor:
        # Shuffled batch norm (1911.05722 section 3.3): a key is normalised together with other
        # images than its query, else the statistics would give the answer away. Every worker draws
        # the same permutation of the global batch and encodes its own part of it.
        generator = rng.generator(self.config.seed, "shuffle", self.steps_taken)
        order = torch.randperm(self.config.batch, generator=generator).to(self.device)
        own = collective.share(order)
        shuffled = collective.gather(views)[own].contiguous(memory_format=self.memory_format)
        found = [
            self.key(shuffled[part], groups=max(1, len(shuffled[part]) // self._group))
            for part in self._parts()
        ]
        keys = collective.gather(F.normalize(torch.cat(found).float(), dim=1))
        return keys[order.argsort()]

    def _enqueue(self, keys: torch.Tensor) -> None:
        self.queue[self.pointer : self.pointer + len(keys)] = keys
        self.pointer = (self.pointer + len(keys)) % len(self.queue)

    def trunk_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the tensors of the query encoder's trunk: the product of training."""
        return contrastive.trunk_state(self.query.trunk)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""
        return {
            "query": self.query.state_dict(),
            "key": self.key.state_dict(),
            "queue": self.queue,
            "pointer": self.pointer,
            "optimizer": self.optimizer.state_dict(),
            "step": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.query.load_state_dict(state["query"])
        self.key.load_state_dict(state["key"])
        self.queue.copy_(state["queue"])
        self.pointer = state["pointer"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_taken = state["step"]


def similarities(queries: torch.Tensor, keys: torch.Tensor, *, queue: torch.Tensor) -> torch.Tensor:
    """Return the dot products of InfoNCE, the positive first (1911.05722 eq. 1).

    Args:
        queries: ``(batch, dim)`` of unit length.
        keys: ``(batch, dim)`` of unit length, the positives.
        queue: ``(negatives, dim)`` of unit length.

    Returns:
        ``(batch, 1 + negatives)`` in [-1, 1].
    """
    positive = (queries * keys).sum(1, keepdim=True)
    return torch.cat([positive, queries @ queue.T], dim=1)


@torch.no_grad()
def follow(key: nn.Module, query: nn.Module, *, momentum: float) -> None:
    """Move the key encoder towards the query encoder (1911.05722 eq. 2): ``m k + (1 - m) q``.

    Parameters only: batch-norm buffers are each encoder's own, as in the official code.
    """
    for k, q in zip(key.parameters(), query.parameters(), strict=True):
        k.lerp_(q, 1 - momentum)
