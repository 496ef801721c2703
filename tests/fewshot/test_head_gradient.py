import pytest
import torch
from torch import nn
from torch.nn import functional as F

from raysweep import rng
from raysweep.fewshot.head_gradient import features_of, head_gradient, head_tangent
from raysweep.fewshot.label_gradients import soft_cross_entropy
from tests.reference import matching as reference


def case(batch, classes, channels, size, px, dtype):
    stream = rng.generator(0, "head", batch, classes, channels)
    features = torch.randn(batch, channels, *size, generator=stream, dtype=dtype)
    scores = torch.randn(batch, classes, *px, generator=stream, dtype=dtype)
    direction = torch.randn(classes, channels, 1, 1, generator=stream, dtype=dtype)
    with rng.seeded(0, "layer"):
        layer = nn.Conv2d(channels, classes, 1).to(dtype)
    return features, scores.requires_grad_(), direction, layer


SIZES = [((4, 4), (4, 4)), ((3, 5), (3, 5)), ((2, 2), (16, 16)), ((3, 2), (7, 9)), ((9, 9), (4, 5))]


@pytest.mark.parametrize(("size", "px"), SIZES)
@pytest.mark.parametrize(("batch", "classes", "channels"), [(1, 2, 1), (2, 5, 3), (3, 3, 8)])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_closed_form_equals_the_double_backward_pass(
    size, px, batch, classes, channels, dtype, within
):
    features, scores, direction, layer = case(batch, classes, channels, size, px, dtype)
    logits = layer(features)
    if size != px:
        logits = F.interpolate(logits, size=px, mode="bilinear", align_corners=False)
    labels = scores.softmax(1)
    loss = soft_cross_entropy(logits, labels)
    (long,) = torch.autograd.grad(loss, [layer.weight], create_graph=True)
    short = head_gradient(logits.detach().softmax(1) - labels, features)
    assert (short - long).abs().max() <= within * long.abs().max()
    ways = [
        torch.autograd.grad(each, scores, direction, retain_graph=True) for each in (long, short)
    ]
    by_labels = -head_tangent(direction, features, px) / (batch * px[0] * px[1])
    ways.append(torch.autograd.grad(labels, scores, by_labels))
    for (other,) in ways[1:]:
        assert (other - ways[0][0]).abs().max() <= within * other.abs().max()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 2), (2, 3, 4, 2, 5)])
def test_equals_a_sum_over_pixels(shape):
    batch, channels, height, width, classes = shape
    px = (height, width)
    features, scores, _, layer = case(batch, classes, channels, px, px, torch.float64)
    with torch.no_grad():
        weight = layer.weight[:, :, 0, 0]
        residual = F.conv2d(features, layer.weight).softmax(1) - scores.softmax(1)
        expected = reference.head_gradient(weight, features, scores.softmax(1))
    found = head_gradient(residual, features)[:, :, 0, 0]
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_what_a_layer_is_given_is_collected_inside_the_block_only():
    layer = nn.Conv2d(2, 2, 1)
    given = torch.randn(1, 2, 2, 2, generator=rng.generator(0), requires_grad=True)
    with features_of(layer) as found:
        layer(given * 2)
    layer(given)
    assert len(found) == 1
    assert torch.equal(found[0], given * 2)
    assert not found[0].requires_grad
