import pytest
import torch

from raysweep import rng
from raysweep.config import override
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan1_discriminator import Discriminator, minibatch_deviation
from tests.reference import stylegan1 as reference

TINY = StyleGan1Config(
    resolution=16, z_dim=3, w_dim=4, mapping_layers=2, channel_base=16, channel_max=4, mbstd_group=2
)


def normal(*shape, name="x"):
    return torch.randn(*shape, generator=rng.generator(0, name), dtype=torch.float64)


def filled(module):
    """Return the module in double precision with every parameter drawn anew, biases too."""
    module = module.double()
    generator = rng.generator(0, "parameters")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def lists(module):
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("group", [1, 2, 4])
def test_minibatch_deviation_equals_the_definition(group):
    x = normal(4, 2, 3, 3)
    ours = minibatch_deviation(x, group)
    assert ours.shape == (4, 1, 3, 3)
    expected = reference.minibatch_deviation(x.tolist(), group)
    assert ours[:, 0, 1, 2].tolist() == pytest.approx(expected, rel=1e-9)


def test_group_must_divide_the_batch_unless_it_is_larger():
    assert minibatch_deviation(normal(3, 1, 2, 2), 4).shape == (3, 1, 2, 2)
    with pytest.raises(ValueError, match=r"mbstd_group = 4.*batch of 6.*\[1, 2, 3, 6\]"):
        minibatch_deviation(normal(6, 1, 2, 2), 4)


def test_discriminator_equals_the_definition():
    net = filled(Discriminator(TINY))
    images = normal(4, 3, 16, 16)
    logits = net(images)
    assert logits.shape == (4, 1)
    expected = reference.discriminator(lists(net), images.tolist(), group=2)
    assert logits[:, 0].tolist() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    "change", [{"blur": False}, {"mbstd_group": 4}, {"channel_base": 32}, {"resolution": 32}]
)
def test_settings_change_the_discriminator(change):
    config = override(TINY, change)
    images = normal(4, 3, config.resolution, config.resolution)
    small = torch.nn.functional.avg_pool2d(images, config.resolution // 16)
    assert not torch.allclose(
        filled(Discriminator(config))(images), filled(Discriminator(TINY))(small)
    )


def test_gradient_penalty_reaches_every_weight_of_the_discriminator():
    net = filled(Discriminator(TINY))
    images = normal(2, 3, 16, 16).requires_grad_()
    (slope,) = torch.autograd.grad(net(images).sum(), images, create_graph=True)
    slope.square().sum().backward()
    weights = [(name, p) for name, p in net.named_parameters() if name.endswith("weight")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for _, p in weights)
    direction = normal(2, 3, 16, 16, name="direction")
    step = 1e-5
    moved = [net(images.detach() + sign * step * direction).sum() for sign in (1, -1)]
    slope_along = (slope * direction).sum().item()
    assert ((moved[0] - moved[1]) / (2 * step)).item() == pytest.approx(slope_along, rel=1e-5)
