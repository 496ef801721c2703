import pytest
import torch

from raysweep import rng
from raysweep.features.representation import RawColour, TrunkFeatures
from raysweep.nets.resnet import TrunkConfig, build_trunk


def trunk(name="thin"):
    config = TrunkConfig(width=4) if name == "thin" else TrunkConfig(name=name)
    with rng.seeded(0, "trunk"):
        return build_trunk(config)


def images(height=16, width=24, batch=2):
    return torch.randn(batch, 3, height, width, generator=rng.generator(0, "images"))


@pytest.mark.parametrize(("name", "shrinks"), [("thin", 1), ("resnet18", 2)])
def test_levels_have_the_announced_channels_and_stem_stride_one(name, shrinks):
    features = TrunkFeatures(trunk(name))
    assert features.trunk.conv1.stride == (1, 1)
    maps = features(images(32, 48))
    assert tuple(level.shape[1] for level in maps) == features.channels
    sizes = [(32 // (shrinks * 2**at), 48 // (shrinks * 2**at)) for at in range(4)]
    assert [tuple(level.shape[2:]) for level in maps] == sizes


def test_trunk_is_frozen_in_eval_mode_and_no_gradient_flows():
    net = trunk().train()
    features = TrunkFeatures(net)
    assert features.trunk is net
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    asking = images().requires_grad_()
    assert not any(level.requires_grad for level in features(asking))


def test_using_the_features_changes_nothing():
    features = TrunkFeatures(trunk())
    before = {name: value.clone() for name, value in features.trunk.state_dict().items()}
    first, second = features(images()), features(images())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    after = features.trunk.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_features_of_an_image_do_not_depend_on_its_batch():
    features = TrunkFeatures(trunk())
    together = features(images(batch=3))
    alone = features(images(batch=3)[1:2])
    for whole, one in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[1:2], one)


def test_weights_stay_as_they_were():
    net = trunk().eval()
    net.set_stem_stride(1)
    expected = net.stages(images())
    for ours, theirs in zip(TrunkFeatures(trunk())(images()), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_raw_colour_is_the_image():
    features, x = RawColour(), images()
    (level,) = features(x)
    assert torch.equal(level, x)
    assert features.channels == (x.shape[1],)
