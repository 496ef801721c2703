import math

import pydantic
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as oracle

from raysweep import rng
from raysweep.config import override
from raysweep.data import augment, colour, geometry
from tests.reference.nearest import crop_mask

COUNT = 12


def photos(height=40, width=52, count=COUNT, seed=0) -> torch.Tensor:
    generator = rng.generator(seed, "photos")
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).byte()


def floats(**size) -> torch.Tensor:
    return photos(**size).float() / 255


def strengths(low: float, high: float, count=COUNT) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=rng.generator(0, "strength"))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def boxes_for(height, width, count=COUNT, scale=(0.05, 1.0)):
    return geometry.draw_boxes(
        count,
        height=height,
        width=width,
        scale=scale,
        ratio=(0.5, 2.0),
        generator=rng.generator(1, "boxes"),
    )


@pytest.mark.parametrize(("height", "width", "px"), [(40, 52, 24), (16, 16, 33), (9, 7, 1)])
def test_crop_resize_equals_torchvision(height, width, px):
    images, boxes = floats(height=height, width=width), boxes_for(height, width)
    boxes[0] = torch.tensor([height - 1, width - 1, 1, 1])  # one pixel
    flip = torch.arange(COUNT) % 2 == 1
    ours = geometry.crop_resize(images, boxes=boxes, flip=flip, px=px)
    for image, box, flipped, out in zip(images, boxes.tolist(), flip, ours, strict=True):
        expected = oracle.resized_crop(image, *box, size=[px, px], antialias=True)
        close(out, oracle.horizontal_flip(expected) if flipped else expected)


@pytest.mark.parametrize(("height", "width", "px"), [(40, 52, 24), (16, 16, 33), (9, 7, 1)])
def test_crop_masks_reads_under_the_pixel_centre(height, width, px):
    masks = photos(height=height, width=width)[:, 0]
    boxes, flip = boxes_for(height, width), torch.arange(COUNT) % 2 == 1
    ours = geometry.crop_masks(masks, boxes=boxes, flip=flip, px=px)
    for mask, box, flipped, out in zip(masks, boxes.tolist(), flip, ours, strict=True):
        expected = crop_mask(mask.tolist(), box=tuple(box), flip=bool(flipped), px=px)
        assert out.tolist() == expected


def test_crop_masks_equals_torchvision_nearest_exact():
    # no centre falls on the border of two pixels at 32 px, where torch's answer is rounding noise
    masks, boxes = photos()[:, 0], boxes_for(40, 52)
    ours = geometry.crop_masks(masks, boxes=boxes, flip=torch.zeros(COUNT, dtype=torch.bool), px=32)
    for mask, box, out in zip(masks, boxes.tolist(), ours, strict=True):
        mode = v2.InterpolationMode.NEAREST_EXACT
        expected = oracle.resized_crop(mask[None], *box, size=[32, 32], interpolation=mode)
        assert torch.equal(out, expected[0])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.0, 2.0),
        ("contrast", 0.0, 2.0),
        ("saturation", 0.0, 2.0),
        ("hue", -0.5, 0.5),
    ],
)
def test_adjustments_equal_torchvision(name, low, high):
    images, strength = floats(), strengths(low, high)
    images[0] = 0.3  # gray: no hue
    images[1] = torch.tensor([1.0, 1.0, 0.0])[:, None, None]  # two channels share the maximum
    ours = colour.ADJUSTMENTS[name](images, strength)
    theirs = getattr(oracle, f"adjust_{name}")
    for image, value, out in zip(images, strength.tolist(), ours, strict=True):
        close(out, theirs(image, value))


def test_jitter_is_applied_in_its_order():
    images = floats()
    jitter = {"contrast": strengths(0.2, 2), "brightness": strengths(0.2, 2)}
    ours = colour.apply_jitter(images, jitter)
    for index, out in enumerate(ours):
        expected = images[index]
        for name, strength in jitter.items():
            expected = getattr(oracle, f"adjust_{name}")(expected, strength[index].item())
        close(out, expected)


def test_grayscale_equals_torchvision_where_chosen():
    images = floats()
    chosen = torch.arange(COUNT) % 3 == 0
    for image, gray, out in zip(images, chosen, colour.to_grayscale(images, chosen), strict=True):
        close(out, oracle.rgb_to_grayscale(image, num_output_channels=3) if gray else image)


@pytest.mark.parametrize(("height", "width", "radius"), [(32, 32, 6), (20, 9, 3), (4, 4, 3)])
def test_blur_equals_torchvision(height, width, radius):
    images, sigma = floats(height=height, width=width), strengths(0.1, 2)
    ours = colour.gaussian_blur(images, sigma=sigma, radius=radius)
    kernel = [2 * radius + 1] * 2
    for image, value, out in zip(images, sigma.tolist(), ours, strict=True):
        close(out, oracle.gaussian_blur(image, kernel_size=kernel, sigma=[value, value]))


def test_sigma_zero_leaves_the_image_untouched():
    images = floats()
    ours = colour.gaussian_blur(images, sigma=torch.zeros(COUNT), radius=4)
    assert torch.equal(ours, images)


def test_blur_of_one_pixel():
    radius = colour.blur_radius(2.0, px=1)
    images = floats(height=1, width=1)
    assert torch.equal(colour.gaussian_blur(images, sigma=strengths(1, 2), radius=radius), images)


def test_boxes_follow_scale_and_ratio():
    boxes = geometry.draw_boxes(
        4000,
        height=200,
        width=200,
        scale=(0.2, 0.6),
        ratio=(0.75, 4 / 3),
        generator=rng.generator(0, "b"),
    ).double()
    top, left, height, width = boxes.unbind(1)
    assert ((top >= 0) & (top + height <= 200) & (left >= 0) & (left + width <= 200)).all()
    area, aspect = height * width / 200**2, width / height
    assert 0.19 < area.min() < 0.22
    assert 0.58 < area.max() < 0.61
    assert area.mean() == pytest.approx(0.4, abs=0.01)
    assert aspect.log().mean() == pytest.approx(0, abs=0.01)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.02)


def test_impossible_ratio_falls_back_to_the_largest_centred_box():
    boxes = geometry.draw_boxes(
        3, height=10, width=100, scale=(1.0, 1.0), ratio=(1.0, 1.0), generator=rng.generator(0)
    )
    assert boxes.tolist() == [[0, 45, 10, 10]] * 3


def test_jitter_ranges_and_probability():
    jitter = colour.draw_jitter(
        4000, strength=(0.4, 1.5, 0, 0.1), p=0.8, generator=rng.generator(0, "j")
    )
    assert set(jitter) == {"brightness", "contrast", "hue"}
    brightness = jitter["brightness"]
    assert (brightness != 1).float().mean() == pytest.approx(0.8, abs=0.03)
    assert 0.6 <= brightness.min() < 0.61
    assert 1.39 < brightness.max() <= 1.4
    assert 0 <= jitter["contrast"].min() < 0.01
    assert jitter["hue"].abs().max() == pytest.approx(0.1, abs=0.001)


def test_order_of_adjustments_varies():
    orders = {
        tuple(
            colour.draw_jitter(
                1, strength=(0.1, 0.1, 0.1, 0.1), p=1.0, generator=rng.generator(0, step)
            )
        )
        for step in range(200)
    }
    assert len(orders) == math.factorial(4)


def test_view_is_the_chain_of_torchvision_functions():
    config, images = augment.ViewConfig(), photos()
    draw = augment.draw_views(
        COUNT, height=40, width=52, config=config, generator=rng.generator(3, "views")
    )
    ours = augment.apply_views(images, draw, px=24, config=config)
    for index, out in enumerate(ours):
        x = images[index].float() / 255
        x = oracle.resized_crop(x, *draw.boxes[index].tolist(), size=[24, 24], antialias=True)
        for name, strength in draw.jitter.items():
            x = getattr(oracle, f"adjust_{name}")(x, strength[index].item())
        if draw.gray[index]:
            x = oracle.rgb_to_grayscale(x, num_output_channels=3)
        if (sigma := draw.sigma[index].item()) > 0:
            x = oracle.gaussian_blur(x, kernel_size=[13, 13], sigma=[sigma, sigma])
        if draw.flip[index]:  # last, as in the papers
            x = oracle.horizontal_flip(x)
        expected = oracle.normalize(x, mean=augment.MEAN, std=augment.STD)
        torch.testing.assert_close(out, expected, atol=5e-5, rtol=0)


def test_part_of_a_draw_makes_the_same_views():
    config, images = augment.ViewConfig(), photos()
    draw = augment.draw_views(
        COUNT, height=40, width=52, config=config, generator=rng.generator(3, "views")
    )
    whole = augment.apply_views(images, draw, px=24, config=config)
    half = augment.apply_views(images[6:], draw.part(slice(6, None)), px=24, config=config)
    close(half, whole[6:])


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": [0.9, 1.0]},
        {"ratio": [1.0, 1.0]},
        {"jitter": [0.0, 0.0, 0.0, 0.0]},
        {"jitter_p": 0.0},
        {"grayscale_p": 1.0},
        {"blur_sigma": [1.0, 1.0]},
        {"blur_p": 0.0},
        {"flip_p": 1.0},
    ],
)
def test_every_view_setting_matters(change):
    def made(config):
        return augment.views(photos(), px=24, config=config, generator=rng.generator(0, "v"))

    base = augment.ViewConfig()
    assert torch.equal(made(base), made(base))
    assert not torch.equal(made(base), made(override(base, change)))


def test_normalise_equals_torchvision():
    expected = oracle.normalize(floats(), mean=augment.MEAN, std=augment.STD)
    close(augment.normalise(photos()), expected)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("crop_scale", (0.5, 0.2), "smallest <= largest"),
        ("crop_scale", (0.5, 1.2), "at most 1.0"),
        ("ratio", (0.0, 1.0), "0 < smallest"),
        ("jitter", (0.1, 0.1, 0.1, 0.6), "hue"),
        ("jitter_p", 1.5, "less than or equal to 1"),
        ("blur_sigma", (0.0, 1.0), "in px"),
    ],
)
def test_bad_settings_are_refused(field, value, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        augment.ViewConfig(**{field: value})
