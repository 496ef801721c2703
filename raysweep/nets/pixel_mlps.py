"""DatasetGAN's annotator: a small MLP on single pixels, and several of them side by side.

2104.06490 section 3.1 and its released code.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from raysweep import rng
from raysweep.nets.hypercolumn import HypercolumnConv2d
from raysweep.nets.layers import Pointwise

# the wide ones from this number of classes on
NARROW: tuple[int, ...] = (128, 32)
WIDE: tuple[int, ...] = (256, 128)
WIDE_FROM = 32
PIXEL_MLP_STD = 0.02


def pixel_widths(num_classes: int) -> tuple[int, ...]:
    """Return the hidden widths of DatasetGAN's MLP."""
    return NARROW if num_classes < WIDE_FROM else WIDE


class PixelMlp(nn.Module):
    """DatasetGAN's style interpreter: batch norm comes after the ReLU, not before it.

    Weights N(0, 0.02), biases 0.

    Args:
        channels: channels of each level, shallow to deep.
        widths: channels of the two hidden layers.
        num_classes: number of classes, background included.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        first, second = widths
        self.first = HypercolumnConv2d(channels, first, kernel=1, bias=True)
        self.norm1 = nn.BatchNorm2d(first)
        self.second = Pointwise(first, second, bias=True)
        self.norm2 = nn.BatchNorm2d(second)
        self.classes = Pointwise(second, num_classes, bias=True)
        for layer in (self.first, self.second, self.classes):
            nn.init.normal_(layer.weight, 0.0, PIXEL_MLP_STD)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
        """Map levels ``(batch, channel_l, height_l, width_l)`` to ``(batch, classes, px, px)``."""
        hidden = self.norm1(F.relu(self.first(levels, (px, px))))
        hidden = self.norm2(F.relu(self.second(hidden)))
        scores: torch.Tensor = self.classes(hidden)
        return scores


class StackedPixelMlps(nn.Module):
    """Several :class:`PixelMlp` of equal size on single pixels, their tensors stacked.

    A layer is one batched product for all members.

    Args:
        sizes: inputs, the two hidden widths, classes.
        members: number of MLPs.
        seed: each member has its own stream of weights.
    """

    def __init__(self, sizes: Sequence[int], *, members: int, seed: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        streams = [rng.generator(seed, "pixel_mlp", member) for member in range(members)]
        for wide, out in itertools.pairwise(sizes):
            drawn = [torch.randn(wide, out, generator=stream) for stream in streams]
            self.weights.append(nn.Parameter(torch.stack(drawn) * PIXEL_MLP_STD))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, out)))
        # per channel and member: batch norm over pixels is independent channel by channel
        self.norms = nn.ModuleList(nn.BatchNorm1d(members * out) for out in sizes[1:-1])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(members, pixels, inputs)`` to ``(members, pixels, classes)``."""
        x = features
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                flat = F.relu(x).transpose(0, 1).flatten(1)
                normal = self.norms[layer - 1](flat)
                x = normal.unflatten(1, (len(weight), -1)).transpose(0, 1)
            x = torch.baddbmm(bias, x, weight)
        return x

    def member_tensors(self, member: int) -> dict[str, torch.Tensor]:
        """Return one member's tensors under the names of :class:`PixelMlp`, copied."""
        found: dict[str, torch.Tensor] = {}
        for layer, name in enumerate(("first", "second", "classes")):
            found[f"{name}.weight"] = self.weights[layer][member].detach().T[:, :, None, None]
            found[f"{name}.bias"] = self.biases[layer][member, 0].detach()
        for layer, norm in enumerate(self.norms, start=1):
            for name, tensor in norm.state_dict().items():
                own = tensor.view(len(self.biases[0]), -1)[member] if tensor.dim() else tensor
                found[f"norm{layer}.{name}"] = own
        return {name: tensor.clone() for name, tensor in found.items()}
