"""The pretrain stage of a generator leaves the same files however often it is interrupted."""

from __future__ import annotations

import sys
import types
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from raysweep import rng
from raysweep.config import ConfigError, override
from raysweep.evaluate.images import mosaic
from raysweep.orchestration.compute import generative
from raysweep.orchestration.compute.generative import (
    Ticks,
    check_images,
    check_workers,
    learn_generator,
)
from raysweep.orchestration.compute.models import GENERATOR
from raysweep.orchestration.compute.worker import run
from raysweep.orchestration.store.stages import Stage, Workspace
from raysweep.orchestration.store.storage import Storage
from raysweep.represent.gan import Gan
from raysweep.represent.generators import read_generator, sample
from tests.represent.gan_cases import AUGMENTED, RECORDED

TINY = override(
    AUGMENTED,
    {
        "gan.network.channel_base": 32,
        "gan.network.channel_max": 4,
        "gan.kimg": 0.36,  # 45 steps
        "gan.ema_kimg": 0.02,
        "gan.tick_kimg": 0.16,
        "gan.measured": 8,
        "gan.snapshots": 2,
    },
)
DISTANCE = "frechet_random_trunk"


def photos(count=36):
    shape = (count, 3, 16, 16)
    return torch.randint(0, 256, shape, generator=rng.generator(0, "photos")).byte()


def learn(config, place, *, images=None, report=lambda progress: None):
    workspace = Workspace(Stage("pretrain", {}), Storage(str(place)))
    curve = learn_generator(
        config,
        photos() if images is None else images,
        workspace,
        device=torch.device("cpu"),
        report=report,
        checkpoints=workspace,
    )
    return curve, workspace


def products(workspace):
    files = [path for path in workspace.path.iterdir() if path.suffix in (".safetensors", ".png")]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def checkpoint_in_every_window(monkeypatch):
    monkeypatch.setattr(generative, "run", partial(run, checkpoint_seconds=0))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    curve, workspace = learn(TINY, tmp_path_factory.mktemp("straight"))
    return curve, products(workspace), workspace.path


def test_files_and_curve_of_a_training(straight):
    curve, files, folder = straight
    assert set(files) == {
        "generator.safetensors",
        "generator-0.176.safetensors",  # step 22
        "generator-0.360.safetensors",
        "samples-0.160.png",
        "samples-0.320.png",
        "samples-0.360.png",
    }
    assert files["generator-0.360.safetensors"] == files["generator.safetensors"]
    assert files["generator-0.176.safetensors"] != files["generator.safetensors"]
    assert [row["step"] for row in curve] == [10, 20, 30, 40, 45]
    assert [row["step"] for row in curve if DISTANCE in row] == [20, 40, 45]
    always = {"step", "sign", "p", "loss/generator", "loss/path", "loss/discriminator"}
    assert all(always <= row.keys() for row in curve)
    assert [row["step"] for row in curve if "loss/r1" in row] == [10, 20, 40]  # at 0, 16, 32
    generator = read_generator(folder / "generator.safetensors")
    shown = next(sample(generator, 64, seed=0)).permute(0, 2, 3, 1).numpy()
    picture = np.asarray(Image.open(folder / "samples-0.360.png"))
    assert (picture == np.asarray(mosaic(shown))).all()


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stops", [[7, 20], [24, 45]])
def test_interrupted_training_ends_with_the_same_files_and_curve(
    stops, straight, tmp_path, monkeypatch
):
    curve, files, _ = straight
    step = Gan.step
    for stop in stops:

        def halting(learner, batch, stop=stop):
            row = step(learner, batch)
            if learner.steps_taken == stop:
                raise StoppedError
            return row

        monkeypatch.setattr(Gan, "step", halting)
        with pytest.raises(StoppedError):
            learn(TINY, tmp_path)
    seen = []

    def counting(learner, batch):
        seen.append(learner.steps_taken)
        return step(learner, batch)

    monkeypatch.setattr(Gan, "step", counting)
    again, workspace = learn(TINY, tmp_path)
    assert again == curve
    assert products(workspace) == files
    assert seen[0] == (stops[-1] - 1) // 10 * 10


def test_stopped_while_reporting(straight, tmp_path):
    def report(progress):
        if progress.step == 40:
            raise StoppedError

    with pytest.raises(StoppedError):
        learn(TINY, tmp_path, report=report)
    curve, workspace = learn(TINY, tmp_path)
    assert curve == straight[0]
    assert products(workspace) == straight[1]


def install_fid(monkeypatch):
    class Extractor(torch.nn.Module):
        def __init__(self, *_, **__):
            super().__init__()

        def forward(self, images):
            return (images.float().mean((2, 3)),)

    name = "torch_fidelity.feature_extractor_inceptionv3"
    fake = types.ModuleType(name)
    fake.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, name, fake)


CHANGES = {  # further files, or only another curve
    "kimg": (0.2, True),
    "mirror": (True, False),
    "tick_kimg": (0.04, True),
    "measured": (9, False),
    "inception": ("weights.pth", False),
    "snapshots": (3, True),
}


def test_every_setting_that_the_training_loop_reads_matters(tmp_path, monkeypatch):
    install_fid(monkeypatch)
    assert set(CHANGES) == RECORDED
    base = override(TINY, {"gan.kimg": 0.16, "gan.snapshots": 1})
    curve, workspace = learn(base, tmp_path / "base")
    for name, (value, leaves_more) in CHANGES.items():
        other_curve, other = learn(override(base, {f"gan.{name}": value}), tmp_path / name)
        if name == "snapshots":
            assert other_curve == curve
        else:
            assert other_curve != curve, name
        more = products(other).keys() - products(workspace).keys()
        assert bool(more) == leaves_more, name
        assert ("fid" in other_curve[-1]) == (name == "inception")
        assert (DISTANCE in other_curve[-1]) == (name != "inception")


def test_a_training_that_ends_sooner_is_a_snapshot_of_the_longer_one(tmp_path):
    _, whole = learn(override(TINY, {"gan.kimg": 0.32, "gan.snapshots": 2}), tmp_path / "whole")
    _, half = learn(override(TINY, {"gan.kimg": 0.16, "gan.snapshots": 1}), tmp_path / "half")
    snapshot = "generator-0.160.safetensors"
    assert (whole.path / snapshot).read_bytes() == (half.path / GENERATOR).read_bytes()
    assert (whole.path / GENERATOR).read_bytes() != (half.path / GENERATOR).read_bytes()


@pytest.mark.parametrize(
    ("tick_kimg", "due"),
    [(0.04, [10, 20, 30, 40, 45]), (0.12, [20, 30, 45]), (0.2, [30, 45]), (9.0, [45])],
)
def test_distances_are_taken_at_the_first_window_after_a_tick(tick_kimg, due, tmp_path):
    config = override(TINY, {"gan.tick_kimg": tick_kimg, "gan.measured": 2})
    ticks = Ticks(Gan(config, device="cpu"), photos(), tmp_path)
    assert [done for done in (10, 20, 30, 40, 45) if ticks.measure(done)] == due


@pytest.mark.parametrize("mirror", [False, True])
def test_an_epoch_shows_every_image_once_and_its_mirror_image_if_asked(
    mirror, tmp_path, monkeypatch
):
    seen = []

    def watching(learner, batch):
        seen.append(batch["image"])
        learner.steps_taken += 1
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(Gan, "step", watching)
    monkeypatch.setattr(Ticks, "measure", lambda *_: {})
    config = override(TINY, {"gan.mirror": mirror, "gan.kimg": 0.144})  # 2 epochs of 72 images
    learn(config, tmp_path)
    images = photos()
    wanted = torch.cat([images, images.flip(-1)]) if mirror else torch.cat([images, images])
    for epoch in torch.cat(seen).split(72):
        keys = sorted(image.numpy().tobytes() for image in epoch)
        assert keys == sorted(image.numpy().tobytes() for image in wanted)


def test_no_training_leaves_random_weights(tmp_path):
    curve, workspace = learn(override(TINY, {"gan.kimg": 0.0}), tmp_path)
    assert curve == []
    assert set(products(workspace)) == {"generator.safetensors"}
    generator = read_generator(workspace.path / "generator.safetensors")
    for name, value in Gan(TINY, device="cpu").average.state_dict().items():
        assert torch.equal(generator.state_dict()[name], value)


def test_too_few_images_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Gan, "step", lambda *_: pytest.fail("training has begun"))
    with pytest.raises(ConfigError, match="31 images are too few .* give 32 or more"):
        learn(TINY, tmp_path, images=photos(31))
    with pytest.raises(ConfigError, match="47 images are too few .* give 48 or more"):
        check_images(override(TINY, {"gan.batch": 48}), 47)
    check_images(TINY, 32)


def test_missing_fid_network_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr(Gan, "step", lambda *_: pytest.fail("training has begun"))
    with pytest.raises(ConfigError, match="torch-fidelity"):
        learn(override(TINY, {"gan.inception": "weights.pth"}), tmp_path)


@pytest.mark.parametrize(
    ("batch", "shrink", "group", "weight", "workers", "message"),
    [
        (8, 2, 4, 2.0, 2, None),
        (8, 2, 4, 2.0, 4, None),  # groups of 2
        (8, 2, 4, 2.0, 8, "path length batch"),
        (8, 2, 4, 0.0, 8, None),
        (6, 2, 2, 2.0, 2, "path_shrink = 3"),
        (12, 1, 4, 2.0, 2, "worker's 6 images .*mbstd_group = 4"),
    ],
)
def test_workers_share_batches_evenly(batch, shrink, group, weight, workers, message):
    changes = {"batch": batch, "path_shrink": shrink, "path_weight": weight}
    changes |= {"network.mbstd_group": group}
    config = override(TINY, {f"gan.{name}": value for name, value in changes.items()})
    if message is None:
        check_workers(config, workers)
        return
    with pytest.raises(ConfigError, match=message):
        check_workers(config, workers)
