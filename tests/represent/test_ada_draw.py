import math

import pytest
import torch

from raysweep import rng
from raysweep.represent import ada_draw
from raysweep.represent.ada import AdaConfig, AugmentationDraw, apply_augmentation, recolour
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


def of_image(batch, index):
    return {name: value[index].item() for name, value in batch.items()}


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_inverse_geometry_undoes_the_transforms_one_by_one(p, seed):
    batch = strengths(p=p, seed=seed)
    inverse = ada_draw.inverse_geometry(batch)
    for index, matrix in enumerate(inverse):
        for point in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-3.5, 2.25)]:
            x, y = reference.move(point, of_image(batch, index))
            back = matrix @ torch.tensor([x, y, 1], dtype=torch.float64)
            assert back.tolist() == pytest.approx([*point, 1], abs=1e-9)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_colours_equal_the_operations_one_by_one(p, seed):
    batch, images = strengths(p=p, seed=seed), photos(6, 2, 3, dtype=torch.float64)
    ours = recolour(images, ada_draw.colour(batch))
    for index, (image, out) in enumerate(zip(images, ours, strict=True)):
        for pixel, value in zip(image.flatten(1).T, out.flatten(1).T, strict=True):
            expected = reference.recolour(pixel.tolist(), of_image(batch, index))
            assert value.tolist() == pytest.approx(expected, abs=1e-9)


MADE_ANYWAY = {"flip": 1 / 2, "luma_flip": 1 / 2, "quarters": 3 / 4, "whole_x": 7 / 8}
"""Share of the draws made that change something, of transforms with few values at 32 px."""
TRANSFORMS = [name for name in NEUTRAL if not name.endswith("_y")]


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0, 3.0])
def test_each_transform_is_made_with_its_probability(p):
    count = 20000
    batch = strengths(count, p, height=32, width=32)
    share = {n: (batch[n] != NEUTRAL[n]).double().mean().item() for n in TRANSFORMS}
    for name in TRANSFORMS:
        expected = min(p, 1.0) * MADE_ANYWAY.get(name, 1.0)
        if name in ("pre", "post"):
            expected = 1 - math.sqrt(1 - min(p, 1.0))
        assert share[name] == pytest.approx(expected, abs=0.015), name
    neither = ((batch["pre"] == 0) & (batch["post"] == 0)).double().mean().item()
    assert neither == pytest.approx(1 - min(p, 1.0), abs=0.015)


def test_transforms_are_made_independently():
    batch = strengths(20000, 0.5, height=32, width=32)
    names = [n for n in TRANSFORMS if n not in ("pre", "post")]
    made = torch.stack([(batch[n] != NEUTRAL[n]).double() for n in names])
    correlation = torch.corrcoef(made) - torch.eye(len(names), dtype=torch.float64)
    assert correlation.abs().max() < 0.04


def test_strengths_have_the_distributions_of_the_paper():
    batch = strengths(40000, 1.0, height=64, width=32)
    spread = {
        "scale": batch["scale"].log2() / 0.2,
        "stretch": batch["stretch"].log2() / 0.2,
        "shift_x": batch["shift_x"] / (0.125 * 32),
        "shift_y": batch["shift_y"] / (0.125 * 64),
        "brightness": batch["brightness"] / 0.2,
        "contrast": batch["contrast"].log2() / 0.5,
        "saturation": batch["saturation"].log2() / 1.0,
    }
    for name, normal in spread.items():
        assert normal.mean().item() == pytest.approx(0, abs=0.02), name
        assert normal.std().item() == pytest.approx(1, abs=0.02), name
        assert (normal.abs() < 1).double().mean().item() == pytest.approx(0.683, abs=0.015), name
    for name in ("pre", "post", "hue"):
        angle = batch[name]
        assert angle.abs().max().item() <= math.pi
        assert torch.histc(angle, 8, -math.pi, math.pi).sub(5000).abs().max() < 350
    assert torch.bincount(batch["quarters"].long(), minlength=4).sub(10000).abs().max() < 500
    for name, most in (("whole_x", 4), ("whole_y", 8)):
        assert torch.equal(batch[name], batch[name].round())
        assert batch[name].unique().tolist() == list(range(-most, most + 1))


def test_mean_brightness_of_images_has_the_stated_deviation():
    count = 4000
    batch = strengths(count, 1.0)
    only = {n: torch.full_like(v, NEUTRAL[n]) for n, v in batch.items()}
    only |= {"brightness": batch["brightness"]}
    draw = AugmentationDraw(inverse=ada_draw.inverse_geometry(only), colour=ada_draw.colour(only))
    image = photos(1, 3, 3).expand(count, -1, -1, -1)
    change = (apply_augmentation(image, draw) - image).mean((1, 2, 3))
    assert change.std().item() == pytest.approx(0.2, abs=0.01)
