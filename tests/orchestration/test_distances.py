"""Distances of the search: what they measure, and that their file is part of the stage's key."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from raysweep import rng
from raysweep.config import ConfigError, from_dict, override
from raysweep.data.augment import MEAN, STD
from raysweep.fewshot.image_distance import feature_distance, pixel_pyramid
from raysweep.fewshot.latent_projection import ProjectionConfig
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.orchestration.compute import distances
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.distances import image_distance, lpips_distance, read_lpips
from raysweep.presets import smoke
from raysweep.represent.weights import read_trunk, save_trunk
from tests.fewshot.test_latent_projection import BASE, found, targets
from tests.reference import lpips as reference

GENERATIVE = override(smoke(), {"pretrain.method": "stylegan2"})
FINGERPRINT = "f" * 16


def pair(px, *, batch=2):
    shape = (2, batch, 3, px, px)
    return (torch.rand(shape, generator=rng.generator(0, "pair")) * 2 - 1).unbind()


def vgg(*, seed=0, dtype=torch.float32):
    """Random tensors of the shapes that files must have."""
    stream = rng.generator(seed, "vgg")
    found = {}
    for name, shape in distances._lpips_shapes().items():
        drawn = torch.randn(shape, generator=stream, dtype=dtype)
        found[name] = drawn.abs() if name.startswith("lin") else drawn * 0.3
    return found


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setattr(distances, "VGG_WIDTHS", (2, 3, 2, 4, 3))


@pytest.fixture
def trunk_file(tmp_path):
    with rng.seeded(0, "trunk"):
        trunk = build_trunk(TrunkConfig(width=4))
    save_trunk(trunk, tmp_path / "trunk.safetensors")
    return tmp_path / "trunk.safetensors"


def settings(distance, weights, **others):
    return ProjectionConfig(distance=distance, weights=str(weights), **others)


@pytest.mark.parametrize("px", [16, 18])
def test_lpips_equals_the_loops(px, thin):
    tensors = vgg(dtype=torch.float64)
    a, b = (images.double() for images in pair(px))
    lists = {name: tensor.tolist() for name, tensor in tensors.items()}
    expected = [reference.lpips(x.tolist(), y.tolist(), lists) for x, y in zip(a, b, strict=True)]
    found = lpips_distance(tensors)(a, b)
    assert min(expected) > 0.01
    assert found.tolist() == pytest.approx(expected)


def test_full_size_is_vgg16():
    convolutions = [s for s in distances._lpips_shapes().values() if len(s) == 4 and s[2] == 3]
    assert [shape[0] for shape in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert sum(torch.Size(shape).numel() for shape in convolutions) == 14_710_464


def published(tensors):
    renamed = {f"{k}.model.1.weight" if k.startswith("lin") else k: v for k, v in tensors.items()}
    return renamed | {"classifier.0.weight": torch.zeros(2, 2)}


def packaged(tensors):
    """Names in the state dict of the package lpips."""
    found = OrderedDict({"scaling_layer.shift": torch.zeros(1, 3, 1, 1)})
    for name, tensor in tensors.items():
        if name.startswith("lin"):
            found[f"{name}.model.1.weight"] = tensor
            found[f"lins.{name[3:]}.model.1.weight"] = tensor
            continue
        place = int(name.split(".")[1])
        part = sum(place > last for last in (3, 8, 15, 22)) + 1
        found[name.replace("features.", f"net.slice{part}.")] = tensor
    return found


@pytest.mark.parametrize("names", [published, packaged])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_either_layout_are_read(names, suffix, thin, tmp_path):
    tensors = vgg()
    path = tmp_path / f"lpips{suffix}"
    content = {name: tensor.clone() for name, tensor in names(tensors).items()}
    if suffix == ".pth":
        torch.save(content, path)
    else:
        safetensors.torch.save_file(content, path)
    found = read_lpips(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_trunk_distance_is_that_of_the_normalised_images(trunk_file):
    a, b = pair(16)
    trunk = read_trunk(trunk_file)
    trunk.set_stem_stride(1)

    def maps(images):
        planes = [((images[:, c] + 1) / 2 - MEAN[c]) / STD[c] for c in range(3)]
        return trunk.stages(torch.stack(planes, dim=1))

    with torch.no_grad():
        expected = feature_distance(maps)(a, b)
    found = image_distance(settings("trunk", trunk_file), device="cpu")(a, b)
    torch.testing.assert_close(found, expected)
    assert float(found.min()) > 0.01


@pytest.mark.parametrize("distance", ["pixels", "trunk", "lpips"])
def test_gradients_reach_the_image_and_lead_to_the_target(distance, thin, trunk_file, tmp_path):
    safetensors.torch.save_file(vgg(), tmp_path / "lpips.safetensors")
    path = {"trunk": str(trunk_file), "lpips": str(tmp_path / "lpips.safetensors")}.get(distance)
    apart = image_distance(ProjectionConfig(distance=distance, weights=path), device="cpu")
    a, b = pair(16)
    assert apart(b, b).tolist() == [0, 0]
    a.requires_grad_()
    before = apart(a, b)
    before.sum().backward()
    with torch.no_grad():
        after = apart(a - 0.01 * F.normalize(a.grad, dim=(1, 2, 3)), b)
    assert (after < before).all()


def test_pixels_are_the_pyramid():
    assert image_distance(ProjectionConfig(), device="cpu") is pixel_pyramid


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"distance": "vgg"}, "distance = 'vgg'"),
        ({"distance": "trunk"}, "'trunk' needs a local trunk.safetensors"),
        ({"distance": "lpips"}, "'lpips' needs a local file"),
        ({"weights": "a.pth"}, "weights = 'a.pth': distance 'pixels' has none"),
    ],
)
def test_settings_that_do_not_agree_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ProjectionConfig, given)


def experiment(distance, weights):
    return override(GENERATIVE, {"project.distance": distance, "project.weights": str(weights)})


def test_files_that_cannot_serve_are_refused_before_any_work(trunk_file, thin, tmp_path):
    def refused(message, distance, weights):
        with pytest.raises(ConfigError, match=message):
            chain_of(experiment(distance, weights), FINGERPRINT)

    refused(r"project.weights = '.*nowhere' cannot be read", "trunk", tmp_path / "nowhere")
    (tmp_path / "text.safetensors").write_text("no tensors")
    refused("not a safetensors file", "trunk", tmp_path / "text.safetensors")
    refused("not a safetensors file", "lpips", tmp_path / "text.safetensors")
    refused("no LPIPS with VGG16: features.0.weight is missing", "lpips", trunk_file)
    torch.save([1, 2], tmp_path / "list.pth")
    refused("holds a list", "lpips", tmp_path / "list.pth")
    wrong = vgg() | {"lin4": torch.ones(1, 9, 1, 1)}
    safetensors.torch.save_file(wrong, tmp_path / "wrong.safetensors")
    message = r"lin4 is \(1, 9, 1, 1\), needed \(1, 3, 1, 1\)"
    refused(message, "lpips", tmp_path / "wrong.safetensors")


BEFORE = {
    "train": "ec27015f1ccbf0aa",
    "val": "e177feba266382fd",
    "test": "6b7a22ee05f11451",
}
"""Keys of searches from before there was a choice of distances: their results are still found."""


def keys(found):
    return {split: stage.key for split, stage in chain_of(found, FINGERPRINT).projections.items()}


def test_keys_of_the_pixel_distance_stay():
    assert keys(GENERATIVE) == BEFORE
    assert chain_of(GENERATIVE, FINGERPRINT).evaluate.key == "12da2fd70b77a7ba"


def test_keys_follow_the_content_of_the_file_and_the_distance(trunk_file, tmp_path):
    base = keys(experiment("trunk", trunk_file))
    assert not set(base.values()) & set(BEFORE.values())
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(trunk_file.read_bytes())
    assert keys(experiment("trunk", copy)) == base
    trunk = read_trunk(copy)
    with torch.no_grad():
        trunk.conv1.weight += 1
    save_trunk(trunk, copy)
    assert not set(keys(experiment("trunk", copy)).values()) & set(base.values())
    config = chain_of(experiment("trunk", trunk_file), FINGERPRINT).projections["test"].config
    assert config["project"]["distance"] == "trunk"
    assert str(trunk_file) not in str(config)
    assert from_dict(ProjectionConfig, config["project"]).distance == "trunk"


def test_distance_and_weights_change_what_is_found(trunk_file, tmp_path):
    with rng.seeded(1, "trunk"):
        save_trunk(build_trunk(TrunkConfig(width=4)), tmp_path / "other.safetensors")
    searched = []
    for distance, weights in (
        ("pixels", None),
        ("trunk", str(trunk_file)),
        ("trunk", str(tmp_path / "other.safetensors")),
    ):
        changes = {"distance": distance, "weights": weights, "optimise_noise": False}
        config = override(BASE, changes | {"w_noise": 0.0, "steps": 20})
        apart = image_distance(config, device="cpu")
        searched.append(found(config, targets(), distance=apart))
    for run, other in ((0, 1), (1, 2)):
        assert not torch.allclose(searched[run].ws, searched[other].ws, atol=1e-3)
    assert all((run.losses[-1] < run.losses[0]).all() for run in searched)
