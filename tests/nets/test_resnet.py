import pydantic
import pytest
import torch
import torchvision

from raysweep import rng
from raysweep.nets.resnet import Trunk, TrunkConfig, build_trunk, zero_init_residuals


def trunk_of(name: str) -> Trunk:
    with rng.seeded(0, "trunk"):
        return build_trunk(TrunkConfig(name=name)).eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_names_and_values_are_torchvisions(name):
    with rng.seeded(0, "other"):
        theirs = getattr(torchvision.models, name)(weights=None).eval()
    ours = trunk_of(name)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 48, 40, generator=rng.generator(0, "x"))
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("name", "stride", "sizes"),
    [
        ("thin", 2, [32, 16, 8, 4]),
        ("thin", 1, [64, 32, 16, 8]),
        ("resnet18", 2, [16, 8, 4, 2]),
        ("resnet50", 1, [32, 16, 8, 4]),
    ],
)
def test_stage_shapes_and_final_relu(name, stride, sizes):
    trunk = trunk_of(name)
    trunk.set_stem_stride(stride)
    maps = trunk.stages(torch.randn(1, 3, 64, 64, generator=rng.generator(0, "x")))
    assert [tuple(m.shape) for m in maps] == [
        (1, channels, size, size) for channels, size in zip(trunk.channels, sizes, strict=True)
    ]
    assert all(m.min() >= 0 for m in maps)


def test_paper_channels():
    assert trunk_of("resnet50").channels == (256, 512, 1024, 2048)
    assert build_trunk(TrunkConfig(width=3)).channels == (3, 6, 12, 24)


@pytest.mark.parametrize("name", ["thin", "resnet18"])
@pytest.mark.parametrize("stride", [1, 2])
def test_minimum_is_the_smallest_accepted_size(name, stride):
    trunk = trunk_of(name)
    trunk.set_stem_stride(stride)
    least = trunk.minimum_px
    assert trunk.stages(torch.zeros(1, 3, least, least))[-1].shape[-2:] == (1, 1)
    with pytest.raises(ValueError, match=f"at least {least} px"):
        trunk.stages(torch.zeros(1, 3, least, least - 1))
    if stride == 2:
        assert trunk.config.minimum_px == least


def test_stem_stride_keeps_the_weights():
    trunk = trunk_of("thin")
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    trunk.set_stem_stride(1)
    assert all(torch.equal(before[k], v) for k, v in trunk.state_dict().items())
    with pytest.raises(ValueError, match="allowed are 1"):
        trunk.set_stem_stride(3)


def test_forward_is_the_mean_of_the_last_stage():
    trunk = trunk_of("thin")
    images = torch.randn(2, 3, 32, 32, generator=rng.generator(0, "x"))
    torch.testing.assert_close(trunk(images), trunk.stages(images)[-1].flatten(2).mean(2))


@pytest.mark.parametrize("name", ["thin", "resnet50"])
def test_zero_init_makes_blocks_the_identity(name):
    trunk = trunk_of(name)
    zero_init_residuals(trunk)
    block = trunk.layer1[-1]
    x = torch.rand(1, trunk.channels[0], 4, 4, generator=rng.generator(0, "x"))
    torch.testing.assert_close(block(x), x)


def test_width_belongs_to_thin():
    with pytest.raises(pydantic.ValidationError, match="only trunk 'thin' has a width"):
        TrunkConfig(name="resnet18", width=8)
