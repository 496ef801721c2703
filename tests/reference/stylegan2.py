"""StyleGAN2 with loops over single numbers (1912.04958, 1812.04948, 1710.10196).

Arrays are nested lists: images ``[channel][row][column]``, weights ``[out][in][row][column]``.
"""

import math

TAPS = [1 / 8, 3 / 8, 3 / 8, 1 / 8]


def at(plane, row, column):
    inside = 0 <= row < len(plane) and 0 <= column < len(plane[0])
    return plane[row][column] if inside else 0.0


def fir(plane, *, before, height, width, stride=1, gain=1.0):
    """Low-pass filter; ``before`` zeros stand above and left of the plane."""
    return [
        [
            gain
            * sum(
                TAPS[i] * TAPS[j] * at(plane, stride * y + i - before, stride * x + j - before)
                for i in range(4)
                for j in range(4)
            )
            for x in range(width)
        ]
        for y in range(height)
    ]


def upsample(plane):
    """Pixels to even positions, zeros between, filtered with two zeros before, gain 4."""
    height, width = len(plane), len(plane[0])
    spread = [[0.0] * (2 * width) for _ in range(2 * height)]
    for y in range(height):
        for x in range(width):
            spread[2 * y][2 * x] = plane[y][x]
    return fir(spread, before=2, height=2 * height, width=2 * width, gain=4.0)


def downsample(plane):
    """Filtered with one zero before, then the even positions."""
    height, width = len(plane) // 2, len(plane[0]) // 2
    return fir(plane, before=1, height=height, width=width, stride=2)


def correlate(image, weight):
    """Convolution of the deep-learning kind, zeros around, size kept."""
    side = len(weight[0][0])
    return [
        [
            [
                sum(
                    kernel[c][i][j] * at(image[c], y + i - side // 2, x + j - side // 2)
                    for c in range(len(image))
                    for i in range(side)
                    for j in range(side)
                )
                for x in range(len(image[0][0]))
            ]
            for y in range(len(image[0]))
        ]
        for kernel in weight
    ]


def spread_then_filter(image, weight):
    """Each pixel stamps the 3x3 kernel at twice its position; then the low-pass filter."""
    height, width = len(image[0]), len(image[0][0])
    planes = []
    for kernel in weight:
        canvas = [[0.0] * (2 * width + 1) for _ in range(2 * height + 1)]
        for c, plane in enumerate(image):
            for y in range(height):
                for x in range(width):
                    for i in range(3):
                        for j in range(3):
                            canvas[2 * y + i][2 * x + j] += plane[y][x] * kernel[c][i][j]
        planes.append(fir(canvas, before=1, height=2 * height, width=2 * width, gain=4.0))
    return planes


def modulated_conv(image, weight, style, *, demodulate, up, gain=1.0):
    """One sample."""
    own = []
    for kernel in weight:
        scaled = [[[v * s for v in r] for r in p] for p, s in zip(kernel, style, strict=True)]
        energy = sum(v * v for plane in scaled for row in plane for v in row)
        factor = gain / math.sqrt(energy + 1e-8) if demodulate else gain
        own.append([[[v * factor for v in row] for row in plane] for plane in scaled])
    return spread_then_filter(image, own) if up else correlate(image, own)


def lrelu(value):
    return math.sqrt(2) * (value if value > 0 else 0.2 * value)


def dense(x, weight, bias, *, lr_multiplier=1.0):
    gain = lr_multiplier / math.sqrt(len(x))
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) * gain + b * lr_multiplier
        for row, b in zip(weight, bias, strict=True)
    ]


def mapping(z, layers):
    """One latent code through ``[(weight, bias), ...]``."""
    length = math.sqrt(sum(v * v for v in z) / len(z) + 1e-8)
    x = [v / length for v in z]
    for weight, bias in layers:
        x = [lrelu(v) for v in dense(x, weight, bias, lr_multiplier=0.01)]
    return x


def synthesis_layer(image, w, noise, *, affine, weight, bias, strength, up):
    """One sample; ``affine`` is ``(weight, bias)``, ``noise`` ``[row][column]``."""
    style = dense(w, *affine)
    planes = modulated_conv(image, weight, style, demodulate=True, up=up)
    return [
        [
            [lrelu(v + strength * n + b) for v, n in zip(row, noise_row, strict=True)]
            for row, noise_row in zip(plane, noise, strict=True)
        ]
        for plane, b in zip(planes, bias, strict=True)
    ]


def minibatch_std(batch, group):
    """The appended number of each image; ``batch`` is ``[image][channel][row][column]``."""
    groups = len(batch) // group
    flat = [[v for plane in image for row in plane for v in row] for image in batch]
    numbers = []
    for g in range(groups):
        members = [flat[m * groups + g] for m in range(group)]
        deviations = []
        for values in zip(*members, strict=True):
            mean = sum(values) / group
            deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / group + 1e-8))
        numbers.append(sum(deviations) / len(deviations))
    return [numbers[i % groups] for i in range(len(batch))]
