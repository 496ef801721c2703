import math

import pytest
import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.represent import ada_draw, ada_warp
from raysweep.represent.ada import (
    AdaConfig,
    apply_augmentation,
    draw_augmentation,
    recolour,
)
from tests.reference import ada as reference

BASE = AdaConfig()
NEUTRAL = {
    "flip": 0.0,
    "quarters": 0.0,
    "whole_x": 0.0,
    "whole_y": 0.0,
    "scale": 1.0,
    "pre": 0.0,
    "stretch": 1.0,
    "post": 0.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "brightness": 0.0,
    "contrast": 1.0,
    "luma_flip": 0.0,
    "hue": 0.0,
    "saturation": 1.0,
}


def photos(count=4, height=9, width=7, seed=0, dtype=torch.float32):
    generator = rng.generator(seed, "photos")
    return torch.rand(count, 3, height, width, generator=generator, dtype=dtype) * 2 - 1


def strengths(batch=6, p=1.0, *, height=9, width=7, config=BASE, seed=0):
    generator = rng.generator(seed, "augment")
    return ada_draw.draw_strengths(
        batch, p, height=height, width=width, config=config, generator=generator
    )


def drawn(batch=4, p=1.0, *, height=9, width=7, config=BASE, seed=0):
    generator = rng.generator(seed, "augment")
    return draw_augmentation(
        batch, p, height=height, width=width, config=config, generator=generator
    )


def of_image(batch, index):
    return {name: value[index].item() for name, value in batch.items()}


def moved(images, **changes):
    """The images after the given transforms, without any draw."""
    batch = {
        name: torch.full((len(images),), float(value), dtype=torch.float64)
        for name, value in (NEUTRAL | changes).items()
    }
    return ada_warp.affine(images, ada_draw.inverse_geometry(batch).to(images))


def test_filter_is_orthonormal_with_six_vanishing_moments():
    taps = ada_warp.SYM6
    assert len(taps) == 12
    assert sum(taps) == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(0, 12, 2):
        product = sum(a * b for a, b in zip(taps, taps[shift:], strict=False))
        assert product == pytest.approx(float(shift == 0), abs=1e-12)
    for power in range(6):
        moment = sum((-1) ** k * (k - 5.5) ** power * tap for k, tap in enumerate(taps))
        assert moment == pytest.approx(0, abs=1e-8)


def test_filter_is_the_least_asymmetric_one():
    # of all filters with these properties the extremal-phase one puts its weight at one end
    assert ada_warp.SYM6.index(max(ada_warp.SYM6)) == 5
    assert 5 < ada_warp.CENTRE < 5.5


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 5), (6, 4)])
@pytest.mark.parametrize(("p", "seed"), [(0.5, 0), (1.0, 1), (1.0, 2)])
def test_warp_equals_the_definition(height, width, p, seed):
    batch = strengths(3, p, height=height, width=width, seed=seed)
    images = photos(3, height, width, dtype=torch.float64)
    ours = ada_warp.affine(images, ada_draw.inverse_geometry(batch))
    for index, image in enumerate(images):
        expected = reference.warp(image[1].tolist(), of_image(batch, index), ada_warp.SYM6)
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(ours[index, 1], expected, atol=1e-9, rtol=0)


def test_augmentation_warps_then_recolours():
    images, draw = photos(dtype=torch.float64), drawn()
    expected = recolour(ada_warp.affine(images, draw.inverse), draw.colour)
    torch.testing.assert_close(apply_augmentation(images, draw), expected)
    assert (expected - images).flatten(1).abs().amax(1).min() > 0.1


@pytest.mark.parametrize("size", [(2, 2), (5, 3), (9, 16), (33, 32)])
def test_without_movement_the_filters_cancel(size):
    images = photos(2, *size, dtype=torch.float64)
    torch.testing.assert_close(moved(images), images, atol=1e-11, rtol=0)
    single = images.float()
    torch.testing.assert_close(moved(single), single, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, -3), (-5, 4)])
def test_whole_pixels_move_exactly_with_mirrored_borders(x, y):
    images = photos(2, 9, 8, dtype=torch.float64)
    border = (max(x, 0), max(-x, 0), max(y, 0), max(-y, 0))
    top, left = max(-y, 0), max(-x, 0)
    expected = F.pad(images, border, mode="reflect")[:, :, top : top + 9, left : left + 8]
    ours = moved(images, whole_x=x, whole_y=y)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)


def test_mirrors_have_no_end():
    images = photos(1, 6, 5, dtype=torch.float64)
    there = moved(images, whole_x=8 * 100, whole_y=-10 * 100)  # whole periods
    torch.testing.assert_close(there, images, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": 1},
        {"quarters": 1},
        {"quarters": 2, "shift_x": 0.3},
        {"pre": 0.5, "shift_y": -0.7},
        {"scale": 1.3},
        {"stretch": 1.2, "post": -0.4},
    ],
)
def test_linear_ramps_move_exactly(changes):
    size = 28
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    ramp = 2 * at[:, None] - 0.5 * at + 3
    ours = moved(ramp.expand(1, 3, size, size), **changes)[0, 0]
    for i in range(10, 18):  # far from the mirrored borders
        for j in range(10, 18):
            x, y = reference.unmove((at[j].item(), at[i].item()), NEUTRAL | changes)
            assert ours[i, j].item() == pytest.approx(2 * y - 0.5 * x + 3, abs=1e-9)


def test_quarter_turns_and_flips_act_like_torch_on_smooth_images():
    at = torch.linspace(-1, 1, 32, dtype=torch.float64)
    image = torch.sin(2 * at[:, None] + 0.5) * torch.cos(1.5 * at + 1) + at
    image = image.expand(1, 3, 32, 32)
    inner = (slice(None), slice(None), slice(6, 26), slice(6, 26))
    for ours, expected in (
        (moved(image, flip=1), image.flip(3)),
        (moved(image, quarters=1), image.rot90(-1, (2, 3))),
        (moved(image, quarters=3), image.rot90(1, (2, 3))),
    ):
        torch.testing.assert_close(ours[inner], expected[inner], atol=1e-3, rtol=0)
        assert not torch.allclose(image[inner], expected[inner], atol=1e-1)


def test_nothing_changes_at_p_zero():
    images, draw = photos(), drawn(p=0.0)
    assert torch.equal(draw.inverse, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    assert torch.equal(draw.colour, torch.eye(4, dtype=torch.float64).expand(4, 4, 4))
    assert torch.equal(apply_augmentation(images, draw), images)


def test_a_part_of_the_draw_is_that_part_of_the_images():
    images, draw = photos(6, dtype=torch.float64), drawn(6, 0.4)
    whole = apply_augmentation(images, draw)
    halves = [apply_augmentation(images[s], draw.part(s)) for s in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat(halves), whole, atol=1e-12, rtol=0)


def test_an_image_does_not_depend_on_the_others():
    images, draw = photos(6, dtype=torch.float64), drawn(6, 0.15, seed=5)
    moves = (draw.inverse != torch.eye(3)).flatten(1).any(1)
    assert moves.any()
    assert not moves.all()
    whole = apply_augmentation(images, draw)
    for index in range(6):
        row = slice(index, index + 1)
        alone = apply_augmentation(images[row], draw.part(row))
        torch.testing.assert_close(alone, whole[row], atol=1e-12, rtol=0)
    still = ~moves & ~(draw.colour != torch.eye(4)).flatten(1).any(1)
    assert still.any()
    assert torch.equal(whole[still], images[still])


def test_draws_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first = drawn()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.inverse, drawn().inverse)
    assert torch.equal(first.colour, drawn().colour)
    assert not torch.equal(first.inverse, drawn(seed=1).inverse)
    assert not torch.equal(first.colour, drawn(seed=1).colour)


@pytest.mark.parametrize("size", [(6, 6), (2, 5)])
def test_gradients_of_the_warp_of_first_and_second_order(size):
    inverse = drawn(2, height=size[0], width=size[1]).inverse
    images = photos(2, *size, dtype=torch.float64)[:, :1].requires_grad_()

    def squared(x):  # not linear, so that the second derivative is not zero
        return ada_warp.affine(x, inverse).square()

    assert torch.autograd.gradcheck(squared, images)
    assert torch.autograd.gradgradcheck(squared, images)


def test_gradient_penalty_flows_through_the_augmentation():
    images = photos(3, 6, 6, dtype=torch.float64).requires_grad_()
    draw = drawn(3, 0.5, height=6, width=6, seed=2)
    weight = photos(1, 6, 6, seed=1, dtype=torch.float64).requires_grad_()
    score = (weight * apply_augmentation(images, draw)).sum().exp().log1p()
    (gradient,) = torch.autograd.grad(score, images, create_graph=True)
    gradient.square().sum().backward()
    assert weight.grad.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_come_back(dtype):
    images, draw = photos(dtype=torch.float64), drawn()
    ours = apply_augmentation(images.to(dtype), draw)
    assert ours.dtype == dtype
    expected = apply_augmentation(images, draw)
    close = 1e-12 if dtype == torch.float64 else 64 * torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double(), expected, atol=close, rtol=0)


def test_autocast_does_not_coarsen_the_images():
    images, draw = photos(), drawn()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = apply_augmentation(images, draw)
    assert torch.equal(ours, apply_augmentation(images, draw))


def test_tables_made_in_inference_mode_serve_training():
    ada_warp._resamplers.cache_clear()
    with torch.inference_mode():
        apply_augmentation(photos(), drawn())
    images = photos().requires_grad_()
    apply_augmentation(images, drawn()).sum().backward()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(4, 1, 9, 7), (4, 3, 9), (4, 3, 1, 7)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="images = "):
        apply_augmentation(torch.zeros(shape), drawn())


def test_wrong_draws_are_refused():
    with pytest.raises(ValueError, match="draw of 4 images for 3 images"):
        apply_augmentation(photos(3), drawn(4))
    for p in (-0.1, math.nan):
        with pytest.raises(ValueError, match="p = "):
            drawn(p=p)


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu_up_to_second_order():
    draw, results = drawn(8, 0.7, height=32, width=24), []
    for device in ("cpu", "cuda"):
        images = photos(8, 32, 24, dtype=torch.float64).to(device).requires_grad_()
        out = apply_augmentation(images, draw)
        (gradient,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), images)
        results.append([t.detach().cpu() for t in (out, gradient, second)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_cpu, on_gpu, atol=1e-8, rtol=1e-8)
