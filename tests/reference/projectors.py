"""Projectors as the paper's tables print them: plain layers on a materialised hypercolumn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

# name: (channels in, channels out), with C for the number of classes
TABLES: dict[str, dict[str, tuple[int, int | str]]] = {
    "mlp": {"1": (3840, 1024), "2": (1024, 256), "3": (256, "C")},
    "conv_a": {
        "1": (3840, 1024),
        "2": (1024, 256),
        "3": (256, 256),
        "4": (256, 256),
        "5": (256, 512),
        "6": (512, 512),
        "7": (1024, 256),
        "8": (512, 256),
        "9": (512, 128),
        "10": (384, 256),
        "11": (1280, 256),
        "12": (256, "C"),
    },
    "conv_b": {
        "1": (3840, 1024),
        "2": (1024, 256),
        "3": (256, 256),
        "4": (256, 256),
        "5": (256, 512),
        "6": (768, 256),
        "7": (512, 128),
        "8": (384, 256),
        "9": (1280, 256),
        "10": (256, "C"),
    },
}


def stacked(levels: Sequence[torch.Tensor], px: int) -> torch.Tensor:
    """Deepest level first, each resized to px."""
    resize = nn.Upsample(size=(px, px), mode="bilinear", align_corners=False)
    return torch.cat([resize(level) for level in list(levels)[::-1]], dim=1)


class PlainMlp(nn.Sequential):
    """Three 1x1 convolutions without bias."""

    def __init__(self, channels: int, widths: Sequence[int], num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(channels, widths[0], 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[1], 1, bias=False),
            nn.BatchNorm2d(widths[1]),
            nn.ReLU(),
            nn.Conv2d(widths[1], num_classes, 1, bias=False),
        )


class PlainUnet(nn.Module):
    """Model-A (depth 6) or Model-B (depth 5) with every layer written out by index."""

    def __init__(
        self, channels: int, widths: Sequence[int], num_classes: int, *, depth: int
    ) -> None:
        super().__init__()
        self.depth = depth
        inputs = [channels, *widths[: depth - 1]]  # what each layer on the way down reads
        for layer in range(depth, len(widths)):
            skip = widths[2 * depth - 2 - layer]
            inputs.append(skip + widths[layer - 1])
        self.convs = nn.ModuleList(
            [nn.Conv2d(i, o, 3, padding=1) for i, o in zip(inputs, widths, strict=True)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(o) for o in widths])
        self.classes = nn.Conv2d(widths[-1], num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map a hypercolumn to class scores."""
        kept: list[torch.Tensor] = []
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if 0 < layer < self.depth:
                x = nn.functional.max_pool2d(x, kernel_size=2, stride=2)
            if layer >= self.depth:
                skip = kept[2 * self.depth - 2 - layer]
                size = (skip.shape[2], skip.shape[3])
                x = nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)
                x = torch.cat((skip, x), 1)
            x = torch.relu(norm(conv(x)))
            kept.append(x)
        out: torch.Tensor = self.classes(x)
        return out


def enlarged(scores: list[list[float]], height: int, width: int) -> list[list[float]]:
    """Bilinear resize of one map, pixel centres aligned, the border repeated beyond the edge."""

    def place(at: int, old: int, new: int) -> tuple[int, int, float]:
        centre = min(max((at + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        before = int(centre)
        return before, min(before + 1, old - 1), centre - before

    out = []
    for i in range(height):
        top, bottom, down = place(i, len(scores), height)
        row = []
        for j in range(width):
            left, right, across = place(j, len(scores[0]), width)
            above = scores[top][left] * (1 - across) + scores[top][right] * across
            below = scores[bottom][left] * (1 - across) + scores[bottom][right] * across
            row.append(above * (1 - down) + below * down)
        out.append(row)
    return out
