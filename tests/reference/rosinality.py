"""StyleGAN2 in the layout of rosinality's checkpoints, written from its formulas (1912.04958).

One image at a time, weights scaled by 1 / sqrt(fan in) before they are demodulated.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

Tensors = dict[str, torch.Tensor]

KERNEL = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def random_generator(draw, *, resolution: int, dim: int, layers: int, channels) -> Tensors:
    """Tensors of ``g``; ``draw(*shape)`` makes one, ``channels(r)`` counts."""
    state = {}
    for i in range(1, layers + 1):
        state |= {f"style.{i}.weight": 100 * draw(dim, dim), f"style.{i}.bias": draw(dim)}
    state["input.input"] = draw(1, channels(4), 4, 4)

    def convolution(name, wide, out, side):
        state[f"{name}.conv.weight"] = draw(1, out, wide, side, side)
        state[f"{name}.conv.modulation.weight"] = draw(wide, dim)
        state[f"{name}.conv.modulation.bias"] = 1 + draw(wide)

    def layer(name, wide, out):
        convolution(name, wide, out, 3)
        state[f"{name}.noise.weight"] = draw(1)
        state[f"{name}.activate.bias"] = draw(out)

    def colours(name, wide):
        convolution(name, wide, 3, 1)
        state[f"{name}.bias"] = draw(1, 3, 1, 1)

    layer("conv1", channels(4), channels(4))
    colours("to_rgb1", channels(4))
    state["noises.noise_0"] = draw(1, 1, 4, 4)
    side, i = 8, 0
    while side <= resolution:
        layer(f"convs.{2 * i}", channels(side // 2), channels(side))
        layer(f"convs.{2 * i + 1}", channels(side), channels(side))
        colours(f"to_rgbs.{i}", channels(side))
        state[f"convs.{2 * i}.conv.blur.kernel"] = 4 * KERNEL
        state[f"to_rgbs.{i}.upsample.kernel"] = 4 * KERNEL
        for j in (2 * i + 1, 2 * i + 2):
            state[f"noises.noise_{j}"] = draw(1, 1, side, side)
        side, i = 2 * side, i + 1
    return state


def random_discriminator(draw, *, resolution: int, channels) -> Tensors:
    """Tensors of ``d``."""
    state = {
        "convs.0.0.weight": draw(channels(resolution), 3, 1, 1),
        "convs.0.1.bias": draw(channels(resolution)),
    }
    side, i = resolution, 1
    while side > 4:
        wide, out = channels(side), channels(side // 2)
        state |= {
            f"convs.{i}.conv1.0.weight": draw(wide, wide, 3, 3),
            f"convs.{i}.conv1.1.bias": draw(wide),
            f"convs.{i}.conv2.0.kernel": KERNEL,
            f"convs.{i}.conv2.1.weight": draw(out, wide, 3, 3),
            f"convs.{i}.conv2.2.bias": draw(out),
            f"convs.{i}.skip.0.kernel": KERNEL,
            f"convs.{i}.skip.1.weight": draw(out, wide, 1, 1),
        }
        side, i = side // 2, i + 1
    c = channels(4)
    return state | {
        "final_conv.0.weight": draw(c, c + 1, 3, 3),
        "final_conv.1.bias": draw(c),
        "final_linear.0.weight": draw(c, 16 * c),
        "final_linear.0.bias": draw(c),
        "final_linear.1.weight": draw(1, c),
        "final_linear.1.bias": draw(1),
    }


def activate(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, x, 0.2 * x) * math.sqrt(2)


def filtered(x: torch.Tensor, kernel: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """True convolution of each channel of ``(1, c, h, w)`` after zero padding."""
    x = F.pad(x, (before, after, before, after)).transpose(0, 1)
    return F.conv2d(x, kernel.flip(0, 1)[None, None].to(x)).transpose(0, 1)


def spread(x: torch.Tensor) -> torch.Tensor:
    """A zero after every row and column."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def latent(state: Tensors, z: torch.Tensor) -> torch.Tensor:
    x, i = z / (z.square().mean() + 1e-8).sqrt(), 1
    while f"style.{i}.weight" in state:
        weight, bias = state[f"style.{i}.weight"], state[f"style.{i}.bias"]
        x = activate(weight @ x * (0.01 / math.sqrt(len(x))) + 0.01 * bias)
        i += 1
    return x


def modulated(state: Tensors, name: str, x, w, *, demodulate: bool, up: bool = False):
    affine = state[f"{name}.modulation.weight"] / math.sqrt(len(w))
    style = affine @ w + state[f"{name}.modulation.bias"]
    weight = state[f"{name}.weight"][0]
    weight = weight / math.sqrt(weight[0].numel()) * style[:, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return filtered(x, state[f"{name}.blur.kernel"], 1, 1)
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


def image(state: Tensors, z: torch.Tensor) -> torch.Tensor:
    """Image ``(3, R, R)`` of ``z`` ``(dim,)`` with the stored noise."""
    w = latent(state, z)

    def layer(name, x, noise, *, up=False):
        x = modulated(state, f"{name}.conv", x, w, demodulate=True, up=up)
        x = x + state[f"{name}.noise.weight"] * state[f"noises.noise_{noise}"]
        return activate(x + state[f"{name}.activate.bias"][:, None, None])

    def colours(name, x):
        return modulated(state, f"{name}.conv", x, w, demodulate=False) + state[f"{name}.bias"]

    x = layer("conv1", state["input.input"], 0)
    out, i = colours("to_rgb1", x), 0
    while f"to_rgbs.{i}.bias" in state:
        x = layer(f"convs.{2 * i}", x, 2 * i + 1, up=True)
        x = layer(f"convs.{2 * i + 1}", x, 2 * i + 2)
        out = filtered(spread(out), state[f"to_rgbs.{i}.upsample.kernel"], 2, 1)
        out, i = out + colours(f"to_rgbs.{i}", x), i + 1
    return out[0]


def logit(state: Tensors, picture: torch.Tensor) -> torch.Tensor:
    """Logit of one picture ``(3, R, R)`` that is a batch of its own."""

    def scaled(name):
        weight = state[f"{name}.weight"]
        return weight / math.sqrt(weight[0].numel())

    def bias(name):
        return state[f"{name}.bias"][:, None, None]

    x = activate(F.conv2d(picture[None], scaled("convs.0.0")) + bias("convs.0.1"))
    i = 1
    while f"convs.{i}.skip.1.weight" in state:
        name = f"convs.{i}"
        inner = F.conv2d(x, scaled(f"{name}.conv1.0"), padding=1) + bias(f"{name}.conv1.1")
        inner = filtered(activate(inner), state[f"{name}.conv2.0.kernel"], 2, 2)
        inner = F.conv2d(inner, scaled(f"{name}.conv2.1"), stride=2) + bias(f"{name}.conv2.2")
        skip = filtered(x, state[f"{name}.skip.0.kernel"], 1, 1)
        skip = F.conv2d(skip, scaled(f"{name}.skip.1"), stride=2)
        x, i = (activate(inner) + skip) / math.sqrt(2), i + 1
    x = torch.cat([x, torch.full_like(x[:, :1], math.sqrt(1e-8))], dim=1)
    x = activate(F.conv2d(x, scaled("final_conv.0"), padding=1) + bias("final_conv.1"))
    x = scaled("final_linear.0") @ x.flatten() + state["final_linear.0.bias"]
    return scaled("final_linear.1") @ activate(x) + state["final_linear.1.bias"]
