"""StyleGAN layer by layer on nested lists and double precision (1812.04948, 1710.10196)."""

from __future__ import annotations

import math
from collections.abc import Sequence

Plane = Sequence[Sequence[float]]  # row, column
Planes = Sequence[Plane]  # channel, row, column

GAIN = math.sqrt(2)


def leaky(value: float) -> float:
    return value if value >= 0 else 0.2 * value


def activate(planes: Planes) -> list:
    return [[[leaky(value) for value in row] for row in plane] for plane in planes]


def pixel_norm(z: Sequence[float]) -> list[float]:
    scale = 1 / math.sqrt(sum(value * value for value in z) / len(z) + 1e-8)
    return [value * scale for value in z]


def dense(x, weight, bias, *, gain=1.0, lr_multiplier=1.0) -> list[float]:
    scale = gain / math.sqrt(len(x)) * lr_multiplier
    return [
        sum(v * w * scale for v, w in zip(x, row, strict=True)) + b * lr_multiplier
        for row, b in zip(weight, bias, strict=True)
    ]


def mapping(z, layers) -> list[float]:
    """``layers`` is a list of weight and bias."""
    x = pixel_norm(z)
    for weight, bias in layers:
        x = dense(x, weight, bias, gain=math.sqrt(2), lr_multiplier=0.01)
        x = [leaky(value) for value in x]
    return x


def conv(planes: Planes, weight, bias, *, gain=GAIN, flipped=False) -> list:
    """Zero padding; the sum runs over the kernel as it is stored, or rotated by 180 degrees."""
    side, reach = len(weight[0][0]), len(weight[0][0]) // 2
    height, width = len(planes[0]), len(planes[0][0])
    scale = gain / math.sqrt(len(planes) * side * side)
    out = []
    for kernels, b in zip(weight, bias, strict=True):
        plane = [[b] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                for source, kernel in zip(planes, kernels, strict=True):
                    for i in range(side):
                        for j in range(side):
                            v, h = y + i - reach, x + j - reach
                            if 0 <= v < height and 0 <= h < width:
                                a, c = (side - 1 - i, side - 1 - j) if flipped else (i, j)
                                plane[y][x] += source[v][h] * kernel[a][c] * scale
        out.append(plane)
    return out


def blur(plane: Plane) -> list:
    taps = (0.25, 0.5, 0.25)
    height, width = len(plane), len(plane[0])
    out = [[0.0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            for i in range(3):
                for j in range(3):
                    v, h = y + i - 1, x + j - 1
                    if 0 <= v < height and 0 <= h < width:
                        out[y][x] += taps[i] * taps[j] * plane[v][h]
    return out


def double(plane: Plane) -> list:
    return [
        [plane[y // 2][x // 2] for x in range(2 * len(plane[0]))] for y in range(2 * len(plane))
    ]


def up_conv(planes: Planes, weight, bias, *, flipped: bool, blurred: bool = True) -> list:
    out = conv([double(p) for p in planes], weight, [0.0] * len(weight), flipped=flipped)
    out = [blur(plane) for plane in out] if blurred else out
    return [
        [[value + b for value in row] for row in plane] for plane, b in zip(out, bias, strict=True)
    ]


def instance_norm(plane: Plane, eps: float) -> list:
    values = [value for row in plane for value in row]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [[(value - mean) / math.sqrt(variance + eps) for value in row] for row in plane]


def epilogue(planes: Planes, w, noise, *, strength, weight, bias, eps) -> list:
    """Noise (one plane or None), leaky ReLU, instance norm, style from ``w``."""
    style = dense(w, weight, bias)
    out = []
    for c, plane in enumerate(planes):
        noisy = [
            [leaky(v + (strength[c] * noise[y][x] if noise else 0.0)) for x, v in enumerate(row)]
            for y, row in enumerate(plane)
        ]
        scale, shift = style[c] + 1, style[len(planes) + c]
        out.append([[v * scale + shift for v in row] for row in instance_norm(noisy, eps)])
    return out


def generator(state: dict, z, noise, *, resolution: int, layers: int, eps: float) -> list:
    """Image of one latent; ``state`` maps the port's names to nested lists."""
    dense_layers = [
        (state[f"g_mapping.dense{i}.weight"], state[f"g_mapping.dense{i}.bias"])
        for i in range(layers)
    ]
    w = mapping(z, dense_layers)

    def styled(planes, block, name, plane):
        prefix = f"g_synthesis.blocks.{block}.{name}"
        return epilogue(
            planes,
            w,
            plane,
            strength=state[f"{prefix}.top_epi.noise.weight"],
            weight=state[f"{prefix}.style_mod.lin.weight"],
            bias=state[f"{prefix}.style_mod.lin.bias"],
            eps=eps,
        )

    def tensors(name):
        return state[f"g_synthesis.{name}.weight"], state[f"g_synthesis.{name}.bias"]

    start = state["g_synthesis.blocks.4x4.const"][0]
    biases = state["g_synthesis.blocks.4x4.bias"]
    x = [[[v + b for v in row] for row in plane] for plane, b in zip(start, biases, strict=True)]
    x = styled(x, "4x4", "epi1", noise[0])
    x = styled(conv(x, *tensors("blocks.4x4.conv")), "4x4", "epi2", noise[1])
    side, index = 8, 2
    while side <= resolution:
        block = f"{side}x{side}"
        x = up_conv(x, *tensors(f"blocks.{block}.conv0_up"), flipped=side >= 128)
        x = styled(x, block, "epi1", noise[index])
        x = conv(x, *tensors(f"blocks.{block}.conv1"))
        x = styled(x, block, "epi2", noise[index + 1])
        side, index = 2 * side, index + 2
    return conv(x, *tensors("torgb"), gain=1)


def halve(plane: Plane) -> list:
    return [
        [
            (plane[y][x] + plane[y][x + 1] + plane[y + 1][x] + plane[y + 1][x + 1]) / 4
            for x in range(0, len(plane[0]), 2)
        ]
        for y in range(0, len(plane), 2)
    ]


def minibatch_deviation(batch: Sequence[Planes], group: int) -> list[float]:
    """One number per image."""
    groups = len(batch) // group
    values = []
    for g in range(groups):
        members = [batch[g + groups * i] for i in range(group)]
        total, count = 0.0, 0
        for c in range(len(members[0])):
            for y in range(len(members[0][0])):
                for x in range(len(members[0][0][0])):
                    pixel = [member[c][y][x] for member in members]
                    mean = sum(pixel) / group
                    variance = sum((value - mean) ** 2 for value in pixel) / group
                    total, count = total + math.sqrt(variance + 1e-8), count + 1
        values.append(total / count)
    return values * group


def discriminator(state: dict, images: Sequence[Planes], *, group: int) -> list[float]:
    """Logits; ``state`` maps names to nested lists."""

    def tensors(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    features = []
    for image in images:
        x = activate(conv(image, *tensors("fromrgb")))
        while len(x[0]) > 4:
            block = f"blocks.{len(x[0])}x{len(x[0])}"
            x = activate(conv(x, *tensors(f"{block}.conv0")))
            x = conv([blur(plane) for plane in x], *tensors(f"{block}.conv1_down"))
            x = activate([halve(plane) for plane in x])
        features.append(x)
    logits = []
    for x, spread in zip(features, minibatch_deviation(features, group), strict=True):
        x = activate(conv([*x, [[spread] * 4] * 4], *tensors("conv")))
        flat = [value for plane in x for row in plane for value in row]
        hidden = [leaky(v) for v in dense(flat, *tensors("dense0"), gain=math.sqrt(2))]
        logits.append(dense(hidden, *tensors("dense1"))[0])
    return logits
