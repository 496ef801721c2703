"""A generator small enough for tests, with the interface of the large ones."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from raysweep import rng

ROWS, DIM, PX = 3, 4, 16
SIZES = (4, 8, 16)


class Synthesis(nn.Module):
    """Three layers: every row and every noise map leaves its mark."""

    def __init__(self, generator):
        super().__init__()
        self.paint = nn.Parameter(torch.randn(ROWS, DIM, 3, 8, 8, generator=generator) / 3)
        self.seen = []

    def forward(self, ws, noise):
        self.seen.append(ws.detach())
        images = torch.einsum("brd,rdcyx->bcyx", ws, self.paint)
        images = F.interpolate(images, size=(PX, PX), mode="bilinear")
        for level in noise:
            images = images + 0.05 * F.interpolate(level, size=(PX, PX))
        return images.tanh()

    def draw_noise(self, batch, *, generator, device):
        shapes = [(batch, 1, size, size) for size in SIZES]
        return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


class Tiny(nn.Module):
    """A linear mapping, bent a little, and the synthesis."""

    config = SimpleNamespace(z_dim=5, num_ws=ROWS)

    def __init__(self):
        super().__init__()
        generator = rng.generator(0, "tiny")
        self.into_w = nn.Parameter(torch.randn(5, DIM, generator=generator))
        self.offset = nn.Parameter(torch.randn(DIM, generator=generator))
        self.synthesis = Synthesis(generator)

    def mapping(self, z):
        return (z @ self.into_w).tanh() + self.offset
