import pytest
import torch

from raysweep.config import ConfigError, from_dict, override
from raysweep.fewshot.segmentors import (
    DEEPLAB_BLOCKS,
    UNET_BLOCKS,
    SegmentorConfig,
    build_segmentor,
    matched,
)
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.nets.unet import UnetConfig


def build(network, **more):
    config = SegmentorConfig(network=network, **more)
    with torch.device("meta"):
        return build_segmentor(config, 4, trunk=None)


@pytest.mark.parametrize(
    ("network", "block", "tensors", "weights"),
    [
        ("deeplab_resnet101", "head", 23, 8),
        ("deeplab_resnet50", "head", 23, 8),
        ("unet", "all", 74, 19),
        ("unet", "output", 2, 1),
        ("deeplab_resnet50", "output", 2, 1),
        ("unet", "input", 8, 2),
        ("unet", "down", 32, 8),
        ("unet", "up", 32, 8),
        ("unet", "u1", 18, 5),
        ("unet", "u2", 18, 5),
    ],
)
def test_blocks_have_as_many_tensors_as_in_the_released_code(network, block, tensors, weights):
    found = matched(build(network), block)
    assert (len(found.parameters), len(found.weights)) == (tensors, weights)


def test_blocks_of_the_unet_are_those_that_see_a_size():
    net = build("unet")
    shapes = {
        name: [tuple(each.shape[:2]) for each in matched(net, name).weights.values()]
        for name in UNET_BLOCKS
    }
    assert shapes["input"] == [(64, 3), (64, 64)]
    assert shapes["u1"] == [(128, 64), (128, 128), (64, 128), (64, 64), (4, 64)]
    assert shapes["u2"] == [(256, 128), (256, 256), (64, 256), (64, 64), (4, 64)]
    whole = sorted(s for n in ("input", "down", "up", "output") for s in shapes[n])
    assert whole == sorted(shapes["all"])


def test_blocks_of_deeplab_grow_from_the_end():
    net = build("deeplab_resnet50")
    sizes = [set(matched(net, name).parameters) for name in DEEPLAB_BLOCKS]
    assert all(small < large for small, large in zip(sizes, sizes[1:], strict=False))
    assert sizes[-1] == {name for name, _ in net.named_parameters()}
    assert all(name.startswith("backbone.layer4") for name in sizes[2] - sizes[1])
    assert {name.split(".")[1] for name in sizes[-1] - sizes[-2]} == {"conv1", "bn1"}


@pytest.mark.parametrize("network", ["unet", "deeplab_thin"])
def test_the_last_layer_is_known_by_name(network):
    net = build(network)
    for block in UNET_BLOCKS if network == "unet" else DEEPLAB_BLOCKS:
        found = matched(net, block)
        assert (found.last is None) == (block in ("input", "up", "down"))
        if found.last:
            assert found.weights[found.last] is net.classes.weight
            assert list(found.weights)[-1] == found.last


def test_a_trunk_is_loaded_and_one_that_does_not_fit_refused():
    thin = build_trunk(TrunkConfig(width=16))
    net = build_segmentor(SegmentorConfig(network="deeplab_thin"), 4, trunk=thin.state_dict())
    assert torch.equal(net.backbone.conv1.weight, thin.conv1.weight)
    other = build_trunk(TrunkConfig(width=8)).state_dict()
    with pytest.raises(ConfigError, match="network = 'deeplab_thin': the trunk's tensors do not"):
        build_segmentor(SegmentorConfig(network="deeplab_thin"), 4, trunk=other)


@pytest.mark.parametrize(
    ("config", "block", "allowed"),
    [
        (SegmentorConfig(network="unet"), "head", "all, up, down, input, output, u1, u2"),
        (SegmentorConfig(network="unet", unet=UnetConfig(widths=(4, 4))), "u2", "output, u1$"),
        (SegmentorConfig(), "up", r"output, head, res5\+head, .*, all"),
    ],
)
def test_blocks_of_another_network_are_refused(config, block, allowed):
    with pytest.raises(ConfigError, match=f"block = '{block}': .* has the blocks .*{allowed}"):
        config.check_block(block)


def test_sizes_are_those_of_the_network():
    wide = override(SegmentorConfig(network="unet"), {"unet.widths": [4, 4, 4]})
    assert wide.minimum_px == 4
    assert SegmentorConfig().minimum_px == 8
    with pytest.raises(ConfigError, match="network = 'resnet'"):
        from_dict(SegmentorConfig, {"network": "resnet"})
