"""Half precision, which the CPU never uses, and the limit on activations that comes with it."""

import pytest
import torch
from torch import nn

from raysweep.config import override
from raysweep.nets import stylegan2, stylegan2_discriminator
from raysweep.nets.stylegan2 import Generator
from raysweep.nets.stylegan2_discriminator import Discriminator
from tests.nets.stylegan2_cases import TINY, draw, seeded


def largest(net, kinds, *args):
    seen = []
    for module in net.modules():
        if type(module).__name__ in kinds:
            module.register_forward_hook(lambda m, given, out: seen.append(out.abs().max().item()))
    net(*args)
    return max(seen)


@pytest.mark.parametrize("half_blocks", [0, 2])
def test_half_blocks_limit_activations(half_blocks):
    config = override(TINY, {"half_blocks": half_blocks})
    generator, discriminator = seeded(Generator, config), seeded(Discriminator, config)
    nn.init.constant_(generator.synthesis.b8.conv0.bias, 1e3)
    nn.init.constant_(discriminator.b16.conv0.bias, 1e3)
    found = [
        largest(generator, {"SynthesisLayer", "ToRgb"}, draw(2, TINY.z_dim)),
        largest(discriminator, {"EqualisedConv2d"}, draw(2, 3, 16, 16)),
    ]
    assert [value <= 256 for value in found] == [half_blocks > 0] * 2


@pytest.mark.parametrize(("half_blocks", "half"), [(0, []), (1, [16]), (2, [16, 8])])
def test_half_blocks_are_the_highest_resolutions(half_blocks, half):
    config = override(TINY, {"half_blocks": half_blocks})
    assert [side for side in (16, 8, 4) if config.is_half(side)] == half
    for net in (seeded(Generator, config).synthesis, seeded(Discriminator, config)):
        assert [side for side in (16, 8) if net.get_submodule(f"b{side}").half_precision] == half


def test_cpu_computes_in_full_precision():
    config = override(TINY, {"half_blocks": 2})
    generator, z = seeded(Generator, config), draw(2, TINY.z_dim)
    torch.testing.assert_close(generator(z), seeded(Generator)(z))


def test_half_precision_is_close_to_full_precision(monkeypatch):
    """The arithmetic of a GPU's half blocks, on the CPU."""

    def in_half(x, *, half, full):
        return x.to(dtype=torch.float16 if half else full)

    config = override(TINY, {"half_blocks": 2})
    generator, discriminator = seeded(Generator, config), seeded(Discriminator, config)
    z = draw(4, TINY.z_dim)
    images = generator(z)
    logits = discriminator(images)
    monkeypatch.setattr(stylegan2, "in_working_format", in_half)
    monkeypatch.setattr(stylegan2_discriminator, "in_working_format", in_half)
    rough = generator(z)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, images)
    torch.testing.assert_close(rough, images, atol=0.02, rtol=0.02)
    torch.testing.assert_close(discriminator(images), logits, atol=0.02, rtol=0.02)


@pytest.mark.gpu
def test_half_blocks_on_a_gpu():
    config = override(TINY, {"half_blocks": 2})
    seen = []
    generator = seeded(Generator, config).cuda()
    for side in TINY.resolutions:
        layer = generator.synthesis.get_submodule(f"b{side}.conv1")
        layer.register_forward_hook(lambda m, given, out: seen.append(out.dtype))
    z = draw(4, TINY.z_dim)
    images = generator(z.cuda())
    assert seen == [torch.float32, torch.float16, torch.float16]
    torch.testing.assert_close(images.cpu(), seeded(Generator)(z), atol=0.05, rtol=0.05)
