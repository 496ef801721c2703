import math

import pytest
import torch
from torch.nn import functional as F

from raysweep.config import override
from raysweep.nets.stylegan2_discriminator import Discriminator, minibatch_std
from tests.nets.stylegan2_cases import TINY, assert_gradient, chosen, draw, seeded
from tests.reference import stylegan2 as reference


@pytest.mark.parametrize(("batch", "group"), [(1, 1), (4, 4), (6, 2), (8, 4), (6, 3)])
def test_minibatch_std_is_the_reference(batch, group):
    x = draw(batch, 2, 3, 4, dtype=torch.float64)
    out = minibatch_std(x, group=group)
    expected = torch.tensor(reference.minibatch_std(x.tolist(), group)).double()
    assert torch.equal(out[:, :2], x)
    torch.testing.assert_close(
        out[:, 2], expected[:, None, None].expand(batch, 3, 4), atol=1e-6, rtol=0
    )


def test_minibatch_std_of_a_small_batch_is_one_group():
    x = draw(3, 2, 4, 4)
    torch.testing.assert_close(minibatch_std(x, group=4), minibatch_std(x, group=3))


def test_minibatch_std_names_group_and_batch():
    with pytest.raises(ValueError, match="mbstd_group = 4 does not divide the batch of 6"):
        minibatch_std(draw(6, 2, 4, 4), group=4)


def test_discriminator_is_its_formula():
    """Section 4.1 of the paper with torch's own layers."""
    net = seeded(Discriminator, override(TINY, {"mbstd_group": 1})).double()
    images = draw(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(draw(len(parameter), name=name))
    state = net.state_dict()

    def conv(x, name, *, activate=True, gain=1.0, **options):
        weight = state[f"{name}.weight"]
        out = F.conv2d(x, weight / math.sqrt(weight[0].numel()), **options)
        out = out + state.get(f"{name}.bias", torch.zeros(len(weight)))[:, None, None]
        return gain * (math.sqrt(2) * F.leaky_relu(out, 0.2) if activate else out)

    def smooth(x, padding, stride=1):
        kernel = state["b16.resample_filter"].expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])

    x = conv(images, "b16.fromrgb")
    for name in ("b16", "b8"):
        skip = conv(smooth(x, 1, 2), f"{name}.skip", activate=False)
        x = conv(smooth(conv(x, f"{name}.conv0", padding=1), 2), f"{name}.conv1", stride=2)
        x = (x + skip) * math.sqrt(0.5)
    x = conv(F.pad(x, (0, 0, 0, 0, 0, 1), value=1e-4), "b4.conv", padding=1).flatten(1)
    weight = state["b4.fc.weight"]
    x = math.sqrt(2) * F.leaky_relu(
        x @ weight.T / math.sqrt(weight.shape[1]) + state["b4.fc.bias"], 0.2
    )
    expected = x @ state["b4.out.weight"].T / math.sqrt(x.shape[1]) + state["b4.out.bias"]
    torch.testing.assert_close(net(images), expected, atol=1e-6, rtol=1e-6)


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"expected \(batch, 3, 16, 16\)"):
        seeded(Discriminator)(draw(2, 3, 8, 8))


def test_group_changes_the_logits():
    images = draw(4, 3, 16, 16)
    logits = [
        seeded(Discriminator, override(TINY, {"mbstd_group": group}))(images) for group in (4, 2)
    ]
    assert not torch.allclose(*logits)


@pytest.mark.parametrize("half_blocks", [0, 1])
def test_input_gradient_of_the_discriminator_can_be_differentiated(half_blocks):
    net = seeded(Discriminator, override(TINY, {"half_blocks": half_blocks})).double()
    images = draw(4, 3, 16, 16, dtype=torch.float64).requires_grad_()

    def r1():
        (gradient,) = torch.autograd.grad(net(images).sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    names = ("b16.fromrgb.weight", "b16.conv1.weight", "b8.skip.weight", "b4.conv.weight")
    assert_gradient(r1, chosen(net, *names))
