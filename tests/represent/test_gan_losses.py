import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from raysweep import rng
from raysweep.nets.stylegan2 import Generator, StyleGan2Config
from raysweep.nets.stylegan2_discriminator import Discriminator
from raysweep.represent import gan_losses as losses
from tests.reference import gan as reference

TINY = StyleGan2Config(
    resolution=16,
    z_dim=4,
    w_dim=4,
    mapping_layers=1,
    channel_base=32,
    channel_max=2,
    mbstd_group=1,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=rng.generator(seed, "numbers"), dtype=torch.float64)


def built(network, config=TINY):
    with rng.seeded(0, "network"):
        module = network(config).double()
        for parameter in module.parameters():  # zero biases and noise strengths hide mistakes
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 400.0])
def test_logistic_losses(count, scale):
    fake, real = scale * normal(count, 1, seed=1), scale * normal(count + 1, 1, seed=2)
    ours = losses.generator_loss(fake).item()
    assert ours == pytest.approx(reference.generator_loss(fake.flatten().tolist()), rel=1e-9)
    ours = losses.discriminator_loss(fake, real).item()
    expected = reference.discriminator_loss(fake.flatten().tolist(), real.flatten().tolist())
    assert ours == pytest.approx(expected, rel=1e-9)


def test_losses_of_undecided_logits_and_their_direction():
    none = torch.zeros(3, 1, requires_grad=True)
    assert losses.generator_loss(none).item() == pytest.approx(math.log(2))
    assert losses.discriminator_loss(none, none).item() == pytest.approx(2 * math.log(2))
    (slope,) = torch.autograd.grad(losses.generator_loss(none), none)
    assert (slope < 0).all()  # the generator wants to be taken for real
    sure = torch.full((2, 1), 1e4)  # does not overflow
    assert losses.generator_loss(-sure).item() == pytest.approx(1e4)
    assert losses.discriminator_loss(-sure, sure).item() == 0


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 2, 3), (3, 3, 2)])
def test_r1_is_the_squared_slope_of_the_logit(batch, height, width):
    images = normal(batch, 3, height, width, seed=3)
    weights = normal(3, height, width, seed=4)

    def logit(values):
        products = (
            w * math.sin(v) for w, v in zip(weights.flatten().tolist(), values, strict=True)
        )
        return math.tanh(sum(products))

    inputs = images.clone().requires_grad_()
    logits = (inputs.sin() * weights).sum((1, 2, 3)).tanh()[:, None]
    ours = losses.r1_penalty(logits, inputs)
    expected = [
        reference.r1(reference.gradient(logit, image.flatten().tolist())) for image in images
    ]
    assert ours.shape == (batch,)
    assert ours.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("batch", "rows", "dim"), [(1, 1, 1), (2, 3, 2), (3, 2, 4)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3)])
def test_path_length_is_the_root_mean_square_over_rows(batch, rows, dim, height, width):
    pixels = 3 * height * width
    ws, noise = normal(batch, rows, dim, seed=5), normal(batch, 3, height, width, seed=6)
    mixing = normal(pixels, rows * dim, seed=7)

    def along(w, direction):
        total = 0.0
        for pixel in range(pixels):
            value = sum(m * x for m, x in zip(mixing[pixel].tolist(), w, strict=True))
            total += math.sin(value) * direction[pixel]
        return total / math.sqrt(height * width)

    inputs = ws.clone().requires_grad_()
    images = (inputs.flatten(1) @ mixing.T).sin().view(batch, 3, height, width)
    ours = losses.path_lengths(images, inputs, noise)
    expected = []
    for w, direction in zip(ws, noise, strict=True):
        y = direction.flatten().tolist()
        slopes = reference.gradient(lambda values, y=y: along(values, y), w.flatten().tolist())
        per_row = [slopes[row * dim : (row + 1) * dim] for row in range(rows)]
        expected.append(reference.path_length(per_row))
    assert ours.shape == (batch,)
    assert ours.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("group", [1, 2])
def test_r1_of_a_discriminator_agrees_with_differences(group):
    network = built(Discriminator, TINY.model_copy(update={"mbstd_group": group}))
    images = normal(2, 3, 16, 16, seed=8)
    inputs = images.clone().requires_grad_()
    ours = losses.r1_penalty(network(inputs), inputs).sum()
    # one random direction per image instead of 768: its slope is the gradient's projection
    (slopes,) = torch.autograd.grad(network(inputs).sum(), inputs)
    assert ours.item() == pytest.approx(slopes.square().sum().item(), rel=1e-9)
    for index in range(2):
        way = torch.zeros_like(images)
        way[index] = slopes[index].detach() / slopes[index].norm()
        with torch.no_grad():
            ahead, behind = (network(images + sign * 1e-6 * way).sum() for sign in (1, -1))
        expected = ((ahead - behind) / 2e-6).item() ** 2
        penalty = losses.r1_penalty(network(inputs), inputs)[index].item()
        assert penalty == pytest.approx(expected, rel=1e-5)


def with_weight(network, name, value, *inputs):
    return functional_call(network, {name: value}, inputs)


@pytest.mark.parametrize("name", ["b16.fromrgb.weight", "b8.conv1.weight", "b4.fc.weight"])
def test_r1_is_differentiable_through_a_discriminator(name):
    network = built(Discriminator, TINY.model_copy(update={"mbstd_group": 2}))
    images = normal(2, 3, 16, 16, seed=9).requires_grad_()
    weight = network.get_parameter(name).detach().clone().requires_grad_()

    def penalty(images, weight):
        return losses.r1_penalty(with_weight(network, name, weight, images), images)

    assert gradcheck(penalty, (images, weight), fast_mode=True, eps=1e-6, atol=1e-5)
    (slope,) = torch.autograd.grad(penalty(images, weight).sum(), weight)
    assert slope.abs().max() > 0


@pytest.mark.parametrize(
    "name", ["synthesis.b4.const", "synthesis.b8.conv0.weight", "synthesis.b16.conv1.affine.weight"]
)
def test_path_length_is_differentiable_through_a_generator(name):
    network = built(Generator)
    ws = normal(2, TINY.num_ws, TINY.w_dim, seed=10).requires_grad_()
    direction = normal(2, 3, 16, 16, seed=11)
    inner = name.removeprefix("synthesis.")
    weight = network.get_parameter(name).detach().clone().requires_grad_()

    def lengths(ws, weight):
        images = with_weight(network.synthesis, inner, weight, ws)
        return losses.path_lengths(images, ws, direction)

    assert gradcheck(lengths, (ws, weight), fast_mode=True, eps=1e-6, atol=1e-5)
    (slope,) = torch.autograd.grad(lengths(ws, weight).sum(), weight)
    assert slope.abs().max() > 0


def test_penalties_of_smooth_functions_are_differentiable_twice():
    images = normal(2, 3, 2, 2, seed=12).requires_grad_()
    weight = normal(12, seed=13).requires_grad_()

    def penalty(images, weight):
        return losses.r1_penalty((images.flatten(1).tanh() @ weight.sin())[:, None], images)

    assert gradcheck(penalty, (images, weight))
    assert gradgradcheck(penalty, (images, weight))
    ws = normal(2, 2, 3, seed=14).requires_grad_()
    mixing, direction = normal(12, 6, seed=15).requires_grad_(), normal(2, 3, 2, 2, seed=16)

    def lengths(ws, mixing):
        return losses.path_lengths(
            (ws.flatten(1) @ mixing.T).tanh().view(2, 3, 2, 2), ws, direction
        )

    assert gradcheck(lengths, (ws, mixing))
    assert gradgradcheck(lengths, (ws, mixing))
