"""Learning to annotate a generator's images from a handful of labelled ones, and its rivals.

LAGM (2211.02003): the annotator labels generated images so that a segmentor's gradients on them
point where those on the labelled images point; in turn the segmentor learns from the annotator.
Rivals are other objectives of the same annotator, see :class:`MatchingConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from raysweep import collective, rng
from raysweep.fewshot import label_gradients
from raysweep.fewshot.maml import maml_gradient
from raysweep.fewshot.matching_config import (
    Labelled,
    MatchingConfig,
    check_fit,
    learning_rate_factor,
)
from raysweep.fewshot.matching_inputs import MatchingInputs
from raysweep.fewshot.phases import Found, Phase, descend, share_statistics
from raysweep.fewshot.segmentors import build_segmentor, matched
from raysweep.learner import Batch
from raysweep.nets.deeplab import DeepLab, seed_dropout
from raysweep.nets.fpn import Fpn
from raysweep.nets.gans import Generator
from raysweep.nets.unet import UNet


class GradientMatching:
    """Learner of annotator and segmentor; the generator stays as it is.

    Workers share both batches. The gradients that are matched, the annotator's and the segmentor's
    are those of all images, averaged by hand: data-parallel wrappers do not see gradients that are
    taken inside a loss. Latents, dropout and augmentation do not depend on the number of workers;
    batch-norm statistics are those of a worker's images, their running means are averaged.

    As released, the segmentor is in training mode in all its passes, with other dropout masks in
    each, and its running statistics see the labelled images too; its labels come from the
    annotator in eval mode. Deviations: images are normalised by ImageNet's mean and std for the
    U-Net too; labelled images are drawn in seeded permutations, not by a windowed sampler.

    Args:
        config: settings.
        generator: any StyleGAN; taken over, in eval mode and frozen.
        labelled: what batches are taken from; checked here and not kept.
        num_classes: number of classes, background included.
        trunk: tensors of DeepLabV3's trunk to start from; None: random.
        flip_pairs: pairs of classes, left and right, that a horizontal flip exchanges.
        device: where everything lives; the generator is moved there.

    Raises:
        ConfigError: labelled set, generator and segmentor do not fit together.
    """

    def __init__(
        self,
        config: MatchingConfig,
        *,
        generator: Generator,
        labelled: Labelled,
        num_classes: int,
        trunk: Mapping[str, torch.Tensor] | None = None,
        flip_pairs: Sequence[tuple[int, int]] = (),
        device: torch.device | str,
    ) -> None:
        check_fit(config, generator=generator, labelled=labelled, num_classes=num_classes)
        self.config, self.device, self.num_classes = config, torch.device(device), num_classes
        self.trunk = None if self._pairs and config.state == "scratch" else trunk
        self.inputs = MatchingInputs(
            config, generator=generator, flip_pairs=flip_pairs, device=self.device
        )
        self.px = self.inputs.px
        with rng.seeded(config.seed, "annotator"):
            annotator = Fpn(config.annotator, self.inputs.generated.channels, num_classes)
        self.annotator = annotator.to(self.device)
        self.segmentor = self._new_segmentor("segmentor")
        self.block = matched(self.segmentor, config.block) if self._pairs else None
        self.optimizers: dict[nn.Module, torch.optim.Optimizer] = {
            self.annotator: self._optimizer(self.annotator, config.annotator_lr),
            self.segmentor: self._optimizer(self.segmentor, config.segmentor_lr),
        }
        self.phases = self._phases()
        self.steps_taken = 0

    @property
    def _pairs(self) -> bool:
        """Whether annotator and segmentor learn from each other."""
        return self.config.objective in ("matching", "maml")

    def _new_segmentor(self, *names: str | int) -> DeepLab | UNet:
        with rng.seeded(self.config.seed, *names):
            net = build_segmentor(self.config.segmentor, self.num_classes, trunk=self.trunk)
        return net.to(self.device)

    def _optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        parameters, momentum = network.parameters(), self.config.momentum
        if self.config.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=lr, betas=(momentum, 0.999))
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum)

    def _phases(self) -> list[Phase]:
        config, first = self.config, self.config.before
        if config.objective == "supervised":
            return [Phase("segmentor", self.segmentor, 1, 0, math.inf, self._supervised)]
        annotate = {
            "matching": self._match,
            "maml": self._meta,
            "pseudo_labels": self._follow_segmentor,
            "inversion": self._invert,
        }[config.objective]
        phases = [Phase("pretrain", self.segmentor, 1, 0, first, self._supervised)] if first else []
        every = config.annotator_interval
        phases.append(Phase("annotator", self.annotator, every, first, math.inf, annotate))
        if self._pairs and not config.state.endswith("fixed"):
            find = None if config.state == "reinitialised" else self._segment
            every = config.segmentor_interval
            phases.append(Phase("segmentor", self.segmentor, every, first, math.inf, find))
        return phases

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Run the phases that are due.

        Args:
            batch: of :func:`raysweep.fewshot.matching_inputs.matching_batch`: ``input``
                ``(labelled_batch / workers, 3, height, width)`` uint8, or codes
                ``(labelled_batch / workers, length)`` float, and ``mask``
                ``(labelled_batch / workers, height, width)`` uint8.

        Returns:
            ``loss/<phase>`` of the phases that ran, the same on every worker; ``lr``, the
            annotator's.

        Raises:
            FloatingPointError: a loss is not finite; names the phase and the step.
            ValueError: wrong number of labelled images.
        """
        self.inputs.check(batch)
        factor = learning_rate_factor(self.steps_taken, config=self.config)
        lrs = self.config.annotator_lr * factor, self.config.segmentor_lr * factor
        for optimizer, lr in zip(self.optimizers.values(), lrs, strict=True):
            optimizer.param_groups[0]["lr"] = lr
        found = {}
        for phase in self.phases:
            if not phase.due(self.steps_taken):
                continue
            if phase.find is None:
                fresh = self._new_segmentor("segmentor", self.steps_taken)
                self.segmentor.load_state_dict(fresh.state_dict())
            else:
                optimizer = self.optimizers[phase.network]
                found[f"loss/{phase.name}"] = descend(
                    phase.find(batch), phase=phase, optimizer=optimizer, step=self.steps_taken
                )
        share_statistics((self.annotator, self.segmentor))
        self.steps_taken += 1
        return {**found, "lr": torch.tensor(lrs[0])}

    def _match(self, batch: Batch) -> Found:
        """The annotator's matching loss."""
        assert self.block is not None
        images, labels = self._annotated()
        self._derive_by(self.block.weights.values())
        self._aim("labelled")
        real = self.inputs.labelled(batch, self.steps_taken)
        target = label_gradients.labelled_gradient(self.segmentor, *real, block=self.block)
        self._aim("generated")
        found = label_gradients.matching_gradient(
            self.segmentor,
            images,
            labels,
            target,
            block=self.block,
            normaliser=self.config.normaliser,
        )
        return found.loss, self._through(labels, found.by_labels)

    def _meta(self, batch: Batch) -> Found:
        """The annotator's loss in meta-learning."""
        assert self.block is not None
        images, labels = self._annotated()
        real, masks = self.inputs.labelled(batch, self.steps_taken)

        def held_out(moved: Mapping[str, torch.Tensor]) -> torch.Tensor:
            self._aim("labelled")
            return F.cross_entropy(functional_call(self.segmentor, dict(moved), (real,)), masks)

        self._derive_by(())
        self._aim("generated")
        found = maml_gradient(
            self.segmentor, images, labels, held_out, block=self.block, config=self.config.maml
        )
        return found.loss, self._through(labels, found.by_labels)

    def _through(self, labels: torch.Tensor, by_labels: torch.Tensor) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(labels, list(self.annotator.parameters()), by_labels)

    def _segment(self, batch: Batch) -> Found:
        """The segmentor's loss on generated images with the annotator's labels."""
        images, levels = self.inputs.draw("segmentor", self.steps_taken)
        with torch.no_grad():
            labels = self.annotator.eval()(levels, self.px).softmax(1)
        logits = self._forward("segmentor", images)
        return self._derived(label_gradients.soft_cross_entropy(logits, labels), self.segmentor)

    def _supervised(self, batch: Batch) -> Found:
        """The segmentor's loss on labelled images."""
        images, masks = self.inputs.labelled(batch, self.steps_taken)
        loss = F.cross_entropy(self._forward("pretrain", images), masks)
        return self._derived(loss, self.segmentor)

    def _follow_segmentor(self, batch: Batch) -> Found:
        """The annotator's loss on the best class of the segmentor, in eval mode."""
        images, levels = self.inputs.draw("annotator", self.steps_taken)
        with torch.no_grad():
            labels = self.segmentor.eval()(images).argmax(1)
        logits = self.annotator.train()(levels, self.px)
        return self._derived(F.cross_entropy(logits, labels), self.annotator)

    def _invert(self, batch: Batch) -> Found:
        """The annotator's loss on codes of labelled images."""
        levels, masks = self.inputs.codes(batch)
        logits = self.annotator.train()(levels, self.px)
        return self._derived(F.cross_entropy(logits, masks), self.annotator)

    def _derived(self, loss: torch.Tensor, network: nn.Module) -> Found:
        return loss, torch.autograd.grad(loss, list(network.parameters()))

    def _forward(self, name: str, images: torch.Tensor) -> torch.Tensor:
        self._aim(name)
        self._derive_by(self.segmentor.parameters())
        logits: torch.Tensor = self.segmentor(images)
        return logits

    def _aim(self, name: str) -> None:
        """Put the segmentor in training mode, with the dropout masks of a pass."""
        config = self.config
        real = name in ("labelled", "pretrain")
        batch = config.labelled_batch if real else config.generated_batch
        seed = rng.derive(config.seed, name)
        first = collective.own(batch).start
        seed_dropout(self.segmentor.train(), seed=seed, step=self.steps_taken, first=first)

    def _derive_by(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let only these of the segmentor's parameters have gradients: others cost time."""
        self.segmentor.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_()

    def _annotated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images for the segmentor and the annotator's soft labels, with their graph."""
        images, levels = self.inputs.draw("annotator", self.steps_taken)
        return images, self.annotator.train()(levels, self.px).softmax(1)

    def results(self) -> dict[str, torch.Tensor]:
        """Return copies of the tensors of what is learnt, contiguous and on the CPU.

        Their names begin with ``annotator.`` and ``segmentor.``, whichever are results.
        """
        config = self.config
        networks: dict[str, nn.Module] = {}
        if config.annotates:
            networks["annotator"] = self.annotator
        if config.segments:
            networks["segmentor"] = self.segmentor
        return {
            f"{part}.{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for part, network in networks.items()
            for name, tensor in network.state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""
        return {
            "annotator": self.annotator.state_dict(),
            "segmentor": self.segmentor.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers.values()],
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.annotator.load_state_dict(state["annotator"])
        self.segmentor.load_state_dict(state["segmentor"])
        for optimizer, saved in zip(self.optimizers.values(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps_taken = state["steps_taken"]
