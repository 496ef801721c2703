"""What the tests of the StyleGAN2 networks share."""

import pytest
import torch

from raysweep import rng
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.nets.stylegan2_layers import SynthesisLayer

TINY = StyleGan2Config(
    resolution=16, z_dim=6, w_dim=5, mapping_layers=2, channel_base=64, channel_max=8
)


def seeded(cls, config=TINY):
    with rng.seeded(0, cls.__name__):
        return cls(config)


def draw(*shape, name="draw", dtype=torch.float32):
    return torch.randn(shape, generator=rng.generator(0, name), dtype=dtype)


def visible_noise(generator, strength=0.5):
    """Switch noise on, as training would."""
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, SynthesisLayer):
                module.noise_strength.fill_(strength)
                module.bias.copy_(draw(len(module.bias), name="bias"))
    return generator


def _difference_quotient(function, tensor, direction, step=1e-6):
    with torch.no_grad():
        tensor += step * direction
    ahead = function().item()
    with torch.no_grad():
        tensor -= 2 * step * direction
    behind = function().item()
    with torch.no_grad():
        tensor += step * direction
    return (ahead - behind) / (2 * step)


def assert_gradient(function, parameters):
    """The gradient of ``function`` along a random direction is the difference quotient."""
    for name, parameter in parameters:
        (gradient,) = torch.autograd.grad(function(), parameter)
        direction = draw(*parameter.shape, name=name, dtype=torch.float64)
        expected = _difference_quotient(function, parameter, direction)
        found = float((gradient * direction).sum())
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), name
        assert gradient.abs().sum() > 0, name


def chosen(net, *names):
    return [(name, parameter) for name, parameter in net.named_parameters() if name in names]
