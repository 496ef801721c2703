import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict
from raysweep.nets.unet import UNet, UnetConfig
from tests.reference import distill as reference


def small(widths=(4, 6, 5), num_classes=3, seed=0):
    with rng.seeded(seed, "unet"):
        return UNet(UnetConfig(widths=widths), num_classes)


def photos(height, width, *, batch=2, dtype=torch.float32):
    generator = rng.generator(0, "photos", height, width)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=dtype)


def test_number_of_parameters_and_shapes_of_the_papers():
    with torch.device("meta"):
        net = UNet(UnetConfig(), 1)
    assert sum(p.numel() for p in net.parameters()) == 13_395_329
    channels = [(p.shape[1], p.shape[0]) for p in net.parameters() if p.dim() == 4]
    assert channels[::2][:5] == [(3, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    assert channels[::2][5:9] == [(1024, 256), (512, 128), (256, 64), (128, 64)]
    assert channels[-1] == (64, 1)


@pytest.mark.parametrize("widths", [(3, 4), (4, 6, 5), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("more", [(0, 0), (0, 1), (1, 0), (3, 2), (7, 15), (16, 5)])
def test_scores_have_the_size_of_the_input(widths, more):
    least = 2 ** (len(widths) - 1)
    net = small(widths, num_classes=5)
    height, width = least + more[0], least + more[1]
    scores = net.eval()(photos(height, width))
    assert scores.shape == (2, 5, height, width)
    assert scores.isfinite().all()


@pytest.mark.parametrize("size", [(15, 16), (16, 15), (1, 64)])
def test_refuses_images_that_vanish(size):
    with pytest.raises(ValueError, match="5 levels needs at least 16 px"):
        small((2, 2, 2, 2, 2))(photos(*size))


def copied(net, num_classes):
    plain = reference.PlainUnet(*net.config.widths, num_classes)
    ours = [layer for block in [*net.down, *net.up] for layer in block]
    convs = [layer for layer in ours if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in ours if isinstance(layer, torch.nn.BatchNorm2d)]
    pairs = [*zip(convs, plain.convs, strict=True), *zip(norms, plain.norms, strict=True)]
    pairs.append((net.classes, plain.classes))
    for mine, other in pairs:
        other.load_state_dict(mine.state_dict())
    return plain, pairs


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (6, 9), (8, 11), (13, 4)])
@pytest.mark.parametrize("train", [True, False])
def test_equals_layers_written_out(size, train):
    net = small().double()
    plain, pairs = copied(net, 3)
    net.train(train)
    plain.double().train(train)
    images = photos(*size, dtype=torch.float64)
    weigh = torch.randn(2, 3, *size, generator=rng.generator(0, "w"), dtype=torch.float64)
    ours, theirs = net(images), plain(images)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    (ours * weigh).sum().backward()
    (theirs * weigh).sum().backward()
    for mine, other in pairs:
        for name, parameter in mine.named_parameters():
            expected = other.get_parameter(name).grad
            torch.testing.assert_close(parameter.grad, expected, atol=1e-7, rtol=1e-7)


def test_blocks_are_named_in_the_order_of_the_image():
    net, seen = small((2, 3, 4, 5)), []
    for name, block in net.blocks().items():
        block.register_forward_hook(lambda *_, name=name: seen.append(name))
    net(photos(8, 8))
    assert seen == ["down0", "down1", "down2", "down3", "up2", "up1", "up0", "classes"]
    assert seen == list(net.blocks())


def test_widths_matter_and_are_checked():
    assert not torch.equal(small((4, 6))(photos(8, 8)), small((4, 7))(photos(8, 8)))
    assert UnetConfig(widths=(2, 2, 2)).minimum_px == 4
    for widths in ([], [4], [4, 0], [4, -1, 4]):
        with pytest.raises((ConfigError, ValueError), match="two or more positive numbers"):
            from_dict(UnetConfig, {"widths": widths})
