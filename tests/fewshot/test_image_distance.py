import pytest
import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.fewshot.image_distance import feature_distance, pixel_pyramid
from tests.reference import projection as reference


def pair(height, width, *, batch=2, channels=3):
    generator = rng.generator(0, "pair")
    shape = (2, batch, channels, height, width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).unbind()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 5), (4, 4), (9, 6), (16, 16)])
def test_pyramid_equals_the_loops(height, width):
    a, b = pair(height, width)
    found = pixel_pyramid(a, b)
    assert found.shape == (2,)
    expected = [reference.pyramid(x.tolist(), y.tolist()) for x, y in zip(a, b, strict=True)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("px", [1, 2, 5])
def test_feature_distance_equals_the_loops(px):
    a, b = pair(2 * px, 2 * px)

    def maps(images):
        return [images, F.avg_pool2d(images, 2).sin()]

    expected = [
        sum(
            reference.feature_term(u[i].tolist(), v[i].tolist())
            for u, v in zip(maps(a), maps(b), strict=True)
        )
        for i in range(2)
    ]
    assert feature_distance(maps)(a, b).tolist() == pytest.approx(expected)


def test_weights_scale_the_channels():
    a, b = pair(4, 4)
    apart = F.normalize(a, dim=1) - F.normalize(b, dim=1)
    weights = torch.tensor([0.5, 0.0, 2.0], dtype=a.dtype)
    found = feature_distance(lambda images: [images], weights=[weights])(a, b)
    terms = apart.square().mean((2, 3))
    torch.testing.assert_close(found, 0.5 * terms[:, 0] + 2 * terms[:, 2])


def test_only_images_that_are_too_large_are_averaged_first():
    seen = []

    def maps(images):
        seen.append(tuple(images.shape[2:]))
        return [images]

    a, b = pair(8, 8)
    found = feature_distance(maps, max_px=4)(a, b)
    halves = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    torch.testing.assert_close(found, feature_distance(maps, max_px=8)(*halves))
    feature_distance(maps, max_px=8)(a, b)
    feature_distance(maps)(a, b)
    assert seen == [(4, 4)] * 4 + [(8, 8)] * 4


def test_the_length_of_features_does_not_count_and_zeros_do_no_harm():
    a, b = pair(4, 4)
    near = feature_distance(lambda images: [images])
    torch.testing.assert_close(near(3 * a, b), near(a, b))
    assert near(a, 2 * a).tolist() == pytest.approx([0, 0], abs=1e-12)
    dark = torch.zeros_like(a).requires_grad_()
    total = feature_distance(lambda images: [images.relu()])(dark, b).sum()
    total.backward()
    assert dark.grad.isfinite().all()
