"""StyleGAN2's losses, penalties and moving averages one number at a time, from the papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Vector = Sequence[float]
STEP = 1e-5  # of central differences, in float64


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def generator_loss(fake_logits: Vector) -> float:
    """Mean of -log sigmoid(D(G(z))); Goodfellow et al. 2014, the non-saturating form."""
    return -sum(log_sigmoid(logit) for logit in fake_logits) / len(fake_logits)


def discriminator_loss(fake_logits: Vector, real_logits: Vector) -> float:
    """Mean of -log(1 - sigmoid(D(G(z)))) plus mean of -log sigmoid(D(x))."""
    fake = -sum(log_sigmoid(-logit) for logit in fake_logits) / len(fake_logits)
    real = -sum(log_sigmoid(logit) for logit in real_logits) / len(real_logits)
    return fake + real


def gradient(function: Callable[[list[float]], float], at: Vector) -> list[float]:
    """Central differences of a function of a list of numbers."""
    slopes = []
    for index in range(len(at)):
        values = []
        for sign in (1, -1):
            moved = list(at)
            moved[index] += sign * STEP
            values.append(function(moved))
        slopes.append((values[0] - values[1]) / (2 * STEP))
    return slopes


def r1(slopes: Vector) -> float:
    """Squared norm of the gradient of an image's logit; 1801.04406 eq. 9 without gamma / 2."""
    return sum(slope * slope for slope in slopes)


def path_length(slopes: Sequence[Vector]) -> float:
    """Root of the mean over rows of w of the squared norm of J^T y; 1912.04958 eq. 4.

    Args:
        slopes: one list per row of w: the gradient of ``sum(image * y) / sqrt(height * width)``.
    """
    norms = [sum(slope * slope for slope in row) for row in slopes]
    return math.sqrt(sum(norms) / len(norms))


def path_penalty(lengths: Vector, *, mean: float, decay: float) -> tuple[float, float]:
    """Mean of (length - a)^2, and a: the moving mean that this batch has already moved."""
    batch_mean = sum(lengths) / len(lengths)
    mean = (1 - decay) * mean + decay * batch_mean
    return sum((length - mean) ** 2 for length in lengths) / len(lengths), mean


def moving_average(
    values: Vector, *, start: float, batch: int, half_life: float, rampup: float | None
) -> list[float]:
    """Averaged weight after each step; the half-life is in images, bounded by those seen so far."""
    average, trace = start, []
    for step, value in enumerate(values):
        images = half_life
        if rampup is not None:
            images = min(images, rampup * step * batch)
        keep = 2 ** (-batch / images) if images > 0 else 0.0
        average = keep * average + (1 - keep) * value
        trace.append(average)
    return trace


def lazy_settings(
    lr: float, betas: tuple[float, float], *, interval: int | None
) -> tuple[float, tuple[float, float]]:
    """Learning rate and betas with a regularisation step every ``interval`` steps, if any.

    1912.04958 appendix B: interval + 1 steps stand for interval; c = k / (k + 1).
    """
    c = 1.0 if interval is None else interval / (interval + 1)
    return c * lr, (betas[0] ** c, betas[1] ** c)


def adam(
    start: float,
    slopes: Sequence[Callable[[float], float]],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
) -> list[float]:
    """Position after each step, given the slope that each step sees (1412.6980 algorithm 1)."""
    x, m, v, trace = start, 0.0, 0.0, []
    for t, slope in enumerate(slopes, start=1):
        g = slope(x)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        x -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
        trace.append(x)
    return trace


def mixed(
    first: Sequence[Vector], second: Sequence[Vector], crossover: Sequence[int], *, rows: int
) -> list[list[list[float]]]:
    """Rows of w per image: those before the crossover from the first code, the others not."""
    return [
        [list(first[image] if row < crossover[image] else second[image]) for row in range(rows)]
        for image in range(len(first))
    ]
