import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from raysweep import rng
from raysweep.config import ConfigError, from_dict
from raysweep.nets.deeplab import (
    SeededDropout,
    ThinConfig,
    build_deeplab,
    seed_dropout,
)
from tests.reference import distill as reference

SMALL = ThinConfig(trunk_width=2, head_width=3, rates=(1, 2))


def thin(config=SMALL, num_classes=3, seed=0):
    with rng.seeded(seed, "deeplab"):
        return build_deeplab("thin", num_classes, thin=config)


def photos(height, width, *, batch=2):
    generator = rng.generator(0, "photos", height, width)
    return torch.randn(batch, 3, height, width, generator=generator)


def torchvisions(backbone, num_classes):
    build = getattr(segmentation, f"deeplabv3_{backbone}")
    return build(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)


@pytest.mark.parametrize(
    ("backbone", "count"), [("resnet101", 58_630_997), ("resnet50", 39_638_869)]
)
def test_tensors_are_torchvisions(backbone, count):
    with torch.device("meta"):
        ours, theirs = build_deeplab(backbone, 21), torchvisions(backbone, 21)
    assert sum(p.numel() for p in ours.parameters()) == count
    shapes = [{n: t.shape for n, t in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_scores_are_torchvisions():
    theirs = torchvisions("resnet50", 4).eval()
    ours = build_deeplab("resnet50", 4).eval()
    ours.load_state_dict(theirs.state_dict())
    images = photos(33, 41)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images)["out"])
        assert ours.backbone(images)["out"].shape == (2, 2048, 5, 6)  # output stride 8


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (16, 16), (33, 17), (64, 40)])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_thin_scores_have_the_size_of_the_input(size, num_classes):
    net = thin(num_classes=num_classes).eval()
    assert net(photos(*size)).shape == (2, num_classes, *size)
    assert net.backbone(photos(*size))["out"].shape == (2, 16, -(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_output_stride_keeps_the_map_large_and_the_field_of_view(stride):
    config = ThinConfig(trunk_width=2, head_width=3, rates=(1, 2), output_stride=stride)
    dense, strided = thin(config).eval().backbone, thin().eval().backbone
    strided.load_state_dict(dense.state_dict())
    images = photos(32, 32)
    found, expected = dense(images)["out"], strided(images)["out"]
    assert found.shape[-1] == 32 // stride
    # dilated convolutions see the same pixels at the places that the strided ones keep
    torch.testing.assert_close(found[:, :, :: 8 // stride, :: 8 // stride], expected)


@pytest.mark.parametrize(("size", "rates"), [((3, 4), (1, 2)), ((5, 5), (2, 4, 6)), ((1, 1), (3,))])
def test_thin_pyramid_is_the_papers(size, rates):
    net = thin(ThinConfig(trunk_width=2, head_width=3, rates=rates)).eval()
    maps = torch.randn(16, *size, generator=rng.generator(0, "maps"))
    weights = [p for p in net.classifier[0].parameters() if p.dim() == 4]
    expected = reference.pyramid(maps, weights, rates, (1 + 1e-5) ** -0.5)
    torch.testing.assert_close(net.classifier[0](maps[None])[0], expected, atol=1e-5, rtol=1e-5)


def test_thin_is_upsampled_bilinearly():
    net = thin().eval()
    images = photos(16, 24)
    small = net.classifier(net.backbone(images)["out"])
    large = nn.Upsample(size=(16, 24), mode="bilinear", align_corners=False)(small)
    assert torch.equal(net(images), large)


def test_blocks_are_named_in_the_order_of_the_image():
    for net in (thin(), build_deeplab("resnet50", 2)):
        seen = []
        for name, block in net.eval().blocks().items():
            block.register_forward_hook(lambda *_, name=name, seen=seen: seen.append(name))
        net(photos(16, 16, batch=1))
        assert seen == list(net.blocks())
        assert seen[:2] == ["stem", "layer1"]
        assert seen[-3:] == ["aspp", "head", "classes"]


@pytest.mark.parametrize(
    "change",
    [
        {"trunk_width": 3},
        {"head_width": 4},
        {"rates": [1, 3]},
        {"rates": [1]},
        {"output_stride": 2},
    ],
)
def test_sizes_of_the_thin_net_matter(change):
    other = from_dict(ThinConfig, {"trunk_width": 2, "head_width": 3, "rates": [1, 2], **change})
    images = photos(32, 32)
    assert not torch.equal(thin().eval()(images), thin(other).eval()(images))
    assert torch.equal(thin().eval()(images), thin().eval()(images))


@pytest.mark.parametrize("rates", [[], [0], [2, -1]])
def test_refuses_rates(rates):
    with pytest.raises((ConfigError, ValueError), match="positive dilations"):
        from_dict(ThinConfig, {"rates": rates})


def test_refuses_to_train_on_one_image():
    net = thin()
    seed_dropout(net, seed=0, step=0, first=0)
    with pytest.raises(ValueError, match="two or more images per worker"):
        net(photos(16, 16, batch=1))
    assert net.eval()(photos(16, 16, batch=1)).shape == (1, 3, 16, 16)


def dropped(x, *, seed=0, step=0, first=0):
    dropout = SeededDropout(0.5)
    seed_dropout(dropout, seed=seed, step=step, first=first)
    return dropout(x)


def test_dropout_keeps_the_mean_and_belongs_to_seed_step_and_image():
    ones = torch.ones(6, 5, 20, 20)
    base = dropped(ones)
    assert set(base.unique().tolist()) == {0.0, 2.0}
    assert base.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(dropped(ones[:2], first=4), base[4:])  # as a third worker sees it
    others = [dropped(ones, seed=1), dropped(ones, step=1), dropped(ones, first=1), base.flip(0)]
    assert not any(torch.equal(base, other) for other in others)


def test_dropout_ignores_the_global_generator_and_evaluation():
    before = torch.get_rng_state()
    net = thin()
    seed_dropout(net, seed=0, step=0, first=0)
    first = net(photos(16, 16))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    net = thin()
    seed_dropout(net, seed=0, step=0, first=0)
    assert torch.equal(net(photos(16, 16)), first)
    ones = torch.ones(2, 3)
    assert torch.equal(SeededDropout(0.5).eval()(ones), ones)
    with pytest.raises(ValueError, match="call seed_dropout"):
        SeededDropout(0.5)(ones)
    assert not any(isinstance(module, nn.Dropout) for module in net.modules())
