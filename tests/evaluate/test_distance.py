import sys
import types

import pytest
import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.evaluate import distance as module
from raysweep.evaluate.distance import FrechetDistance
from tests.reference import frechet as reference


def photos(count=80, seed=0, px=16):
    """Smooth random patterns, so that noise and blur change what is in them."""
    draws = rng.generator(seed, "photos")
    coarse = torch.rand(count, 3, 5, 5, generator=draws)
    return (F.interpolate(coarse, size=(px, px), mode="bilinear") * 255).byte()


def noisy(images, amount):
    noise = torch.randn(images.shape, generator=rng.generator(0, "noise"))
    return (images + amount * noise).clamp(0, 255).byte()


def blurred(images, side):
    smooth = F.avg_pool2d(images.float(), side, stride=1, padding=side // 2)
    return smooth.round().byte()


@pytest.fixture(scope="module")
def measure():
    return FrechetDistance(photos(), inception=None, device="cpu")


def test_distance_of_the_same_images_is_nothing(measure):
    scale = measure.to([noisy(photos(), 64)])
    assert measure.to([photos()]) == pytest.approx(0, abs=1e-4 * scale)
    assert measure.name == "frechet_random_trunk"


@pytest.mark.parametrize("size", [1, 7, 33])
def test_batches_do_not_matter(measure, size):
    images = noisy(photos(), 20)
    expected = measure.to([images])
    assert expected > 0
    assert measure.to(images.split(size)) == pytest.approx(expected, rel=1e-4)
    assert measure.to(iter(images.flip(0).split(size))) == pytest.approx(expected, rel=1e-4)


def test_distance_grows_with_noise_and_with_blur(measure):
    others = measure.to([photos(seed=1)])
    by_noise = [measure.to([noisy(photos(), amount)]) for amount in (8, 24, 72)]
    assert by_noise == sorted(by_noise)
    assert by_noise[-1] > 3 * others
    by_blur = [measure.to([blurred(photos(), side)]) for side in (3, 5, 9)]
    assert by_blur == sorted(by_blur)
    assert by_blur[-1] > 2 * by_blur[0] > 0


def test_distance_is_fixed_by_the_real_images():
    images = noisy(photos(), 30)
    torch.manual_seed(1)
    first = FrechetDistance(photos(), inception=None, device="cpu").to([images])
    torch.manual_seed(2)
    again = FrechetDistance(photos(), inception=None, device="cpu")
    assert again.to([images]) == first == again.to([images])
    others = FrechetDistance(photos(seed=2), inception=None, device="cpu")
    assert others.to([images]) != first


def test_too_few_images_are_refused(measure):
    with pytest.raises(ValueError, match="at least two"):
        measure.to([])
    with pytest.raises(ValueError, match="two feature vectors or more, saw 1"):
        measure.to([photos(1)])


class Extractor(torch.nn.Module):
    """Stands in for the FID network: the mean colour, twice, in three numbers."""

    made = None

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        if not feature_extractor_weights_path.endswith("weights.pth"):
            raise RuntimeError("Error(s) in loading state_dict")
        Extractor.made = (name, features_list, feature_extractor_weights_path)

    def forward(self, images):
        assert images.dtype == torch.uint8
        return (images.float().mean((2, 3)) * 2,)


def install(monkeypatch):
    name = "torch_fidelity.feature_extractor_inceptionv3"
    fake = types.ModuleType(name)
    fake.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, name, fake)


def test_features_of_the_given_weights_make_fid(monkeypatch):
    install(monkeypatch)
    measure = FrechetDistance(photos(), inception="some/weights.pth", device="cpu")
    assert measure.name == "fid"
    assert Extractor.made == ("inception-v3-compat", ["2048"], "some/weights.pth")
    images = noisy(photos(70), 40)
    rows = [(each.double().mean((2, 3)) * 2).tolist() for each in (photos(), images)]
    real, made = ((reference.mean(each), reference.covariance(each)) for each in rows)
    expected = reference.distance(*real, *made)
    assert measure.to(images.split(module.BATCH)) == pytest.approx(expected, rel=1e-3)


def test_fid_without_its_package_or_weights_is_refused(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", None)
        with pytest.raises(ConfigError, match=r"inception = 'w\.pth'.*raysweep\[fid\]"):
            FrechetDistance(photos(), inception="w.pth", device="cpu")
    install(monkeypatch)
    with pytest.raises(ConfigError, match="inception = 'unknown'"):
        FrechetDistance(photos(), inception="unknown", device="cpu")
