"""Train an ordinary segmentation network on a teacher's labels.

Hard labels as in DatasetGAN, GanOrCon and LAGM: DeepLabV3, Adam at a constant 0.001, batch 8, no
augmentation. Soft labels as in ReGAN: U-Net, batch 32, weight decay 0.001, gradients clipped by
value to 0.1, learning rate lowered when validation stands still for 20 epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from raysweep import collective, micro, rng
from raysweep.data.joint import draw_joint, move_images, resized
from raysweep.distill import targets
from raysweep.distill.student_config import StudentConfig, build_student
from raysweep.distill.targets import Targets
from raysweep.learner import Batch, identity
from raysweep.nets.deeplab import seed_dropout

PREDICT_BATCH = 16
LEAST = 2
"""Images per part of a step, at least: the networks have batch norm."""


class Student:
    """Learner of a student.

    Augmentation and dropout of an image depend on its place in the global batch and on the step,
    not on the number of workers or parts (:mod:`raysweep.micro`); batch-norm statistics are those
    of a worker's images in a part, unless ``wrap`` synchronises the workers'.

    Args:
        config: settings.
        num_classes: number of classes, background included.
        flip_pairs: pairs of classes, left and right, that a horizontal flip exchanges.
        device: where everything lives.
        wrap: receives the network, e.g. to make it data-parallel.
    """

    def __init__(
        self,
        config: StudentConfig,
        *,
        num_classes: int,
        flip_pairs: Sequence[tuple[int, int]] = (),
        device: torch.device | str,
        wrap: Callable[[nn.Module], nn.Module] = identity,
    ) -> None:
        self.config, self.flip_pairs, self.device = config, flip_pairs, torch.device(device)
        network = build_student(config, num_classes).to(self.device)
        # On CPUs with AVX-512 the backward pass of torch 2.15's 1x1 convolutions of stride 2 on few
        # channels corrupts memory in channels-last.
        cuda = self.device.type == "cuda"
        self.memory_format = torch.channels_last if cuda else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format).train()
        self.forward = wrap(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=config.lr,
            betas=(config.beta1, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, patience=config.plateau_patience or 0, min_lr=config.plateau_floor
        )
        self.steps_taken = 0

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Update once.

        Args:
            batch: this worker's ``image`` ``(batch / workers, 3, height, width)`` and ``mask``
                ``(batch / workers, height, width)``; for the soft loss ``soft`` ``(batch /
                workers, 2, kept, height, width)`` of
                :func:`raysweep.distill.soft.quantise_soft`. All uint8.

        Returns:
            ``loss``, pixel ``accuracy`` in [0, 1] against the mask, and ``lr``.

        Raises:
            ValueError: wrong number of images, or soft labels are missing.
        """
        config = self.config
        images, labels = self._prepare(batch)
        self.optimizer.zero_grad()
        found = micro.accumulate(
            micro.parts(len(images), least=LEAST),
            lambda part: self._loss_of(part, images, labels),
            wrapped=self.forward,
        )
        if config.clip_value is not None:
            nn.utils.clip_grad_value_(self.network.parameters(), config.clip_value)
        self.optimizer.step()
        self.steps_taken += 1
        return {**found, "lr": torch.tensor(self.lr)}

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def validated(self, loss: float) -> None:
        """Take note of a validation loss, the same on every worker; may lower the learning rate."""
        if self.config.plateau_patience is not None:
            self.plateau.step(loss)

    def _prepare(self, batch: Batch) -> tuple[torch.Tensor, Targets]:
        config, images, mask = self.config, batch["image"], batch["mask"]
        count, _, height, width = images.shape
        if count * collective.size() != config.batch or mask.shape != (count, height, width):
            raise ValueError(
                f"images {tuple(images.shape)} and masks {tuple(mask.shape)} on each of "
                f"{collective.size()} workers: expected batch = {config.batch} images in all, "
                "masks of their size"
            )
        if config.loss == "soft" and "soft" not in batch:
            raise ValueError("loss = 'soft': the batch has no soft labels; read them or use 'hard'")
        draw = draw_joint(
            config.batch,
            height=height,
            width=width,
            config=config.augment,
            generator=rng.generator(config.seed, "augment", self.steps_taken),
        )
        own = draw.part(collective.own(config.batch))
        soft = batch["soft"].to(self.device) if config.loss == "soft" else None
        labels = targets.apply_targets(
            mask.to(self.device), soft, own, px=config.resolution, flip_pairs=self.flip_pairs
        )
        x = move_images(images.to(self.device), own, px=config.resolution)
        return x.contiguous(memory_format=self.memory_format), labels

    def _loss_of(
        self, part: slice, images: torch.Tensor, labels: Targets
    ) -> tuple[torch.Tensor, micro.Metrics]:
        config = self.config
        first = collective.own(config.batch).start + part.start
        seed_dropout(self.network, seed=config.seed, step=self.steps_taken, first=first)
        with self._autocast():
            logits = self.forward(images[part])
        own = Targets(
            labels.mask[part], *(None if each is None else each[part] for each in labels[1:])
        )
        loss = self._loss(logits.float(), own)
        accuracy = (logits.detach().argmax(1) == own.mask).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    def _loss(self, logits: torch.Tensor, labels: Targets) -> torch.Tensor:
        if labels.classes is None or labels.probabilities is None:
            return F.cross_entropy(logits, labels.mask)
        return targets.soft_cross_entropy(logits, labels.classes, labels.probabilities)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Label images with the network as it is now, at their own size.

        Args:
            images: ``(count, 3, height, width)`` uint8.

        Returns:
            ``(count, height, width)`` uint8 labels on the CPU.
        """
        self.network.eval()
        height, width = images.shape[-2:]
        with self._autocast():
            labels = label_images(
                self.network, images, px=self.config.resolution, out_px=(height, width)
            )
        self.network.train()
        return labels

    def network_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the network's tensors, contiguous and on the CPU."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while training."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict(),
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])
        self.steps_taken = state["steps_taken"]


@torch.no_grad()
def label_images(
    network: nn.Module, images: torch.Tensor, *, px: int, out_px: int | tuple[int, int]
) -> torch.Tensor:
    """Label images with a student.

    Images are squeezed to the resolution of the training; scores are upsampled to the size asked
    for (bilinear, ``align_corners=False``) before the best class is taken.

    Args:
        network: in eval mode.
        images: ``(count, 3, height, width)`` uint8.
        px: resolution of the training.
        out_px: side, or height and width, of the result.

    Returns:
        ``(count, height, width)`` uint8 labels on the CPU.
    """
    size = (out_px, out_px) if isinstance(out_px, int) else out_px
    device = next(network.parameters()).device
    cuda = device.type == "cuda"
    labels = [torch.empty(0, *size, dtype=torch.uint8)]
    for part in images.split(micro.rows_at_once(PREDICT_BATCH)) if len(images) else ():
        x = resized(part.to(device).contiguous(), px=px)
        layout = torch.channels_last if cuda else torch.contiguous_format
        scores = network(x.contiguous(memory_format=layout)).float()
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        labels.append(scores.argmax(1).to("cpu", torch.uint8))
    return torch.cat(labels)
