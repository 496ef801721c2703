import argparse

import pytest
import safetensors.torch
import torch
import torchvision

from raysweep import rng
from raysweep.data.augment import normalise
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.represent.untrained import untrained_trunk
from raysweep.represent.weights import load_trunk, read_trunk, save_trunk

THIN, RESNET18 = TrunkConfig(width=4), TrunkConfig(name="resnet18")


def trunk_tensors(config):
    with rng.seeded(1, "trunk"):
        return build_trunk(config).state_dict()


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def moco_file(tensors):
    state = prefixed("module.encoder_q.", tensors) | prefixed("module.encoder_k.", tensors)
    state |= {"module.encoder_q.fc.0.weight": torch.zeros(2, 2)}
    state |= {"module.queue": torch.zeros(2, 4), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {}}


def simsiam_file(tensors):
    state = prefixed("module.encoder.", tensors) | {"module.predictor.0.weight": torch.zeros(2)}
    state |= {"module.encoder.fc.6.bias": torch.zeros(2)}
    return {"epoch": 100, "state_dict": state}


def pycontrast_file(tensors):
    state = prefixed("module.encoder.", tensors) | {"module.head.0.weight": torch.zeros(2)}
    return {"opt": argparse.Namespace(method="MoCov2"), "model": state, "epoch": 800}


def torchvision_file(tensors):
    return tensors | {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}


MAKERS = [moco_file, simsiam_file, pycontrast_file, torchvision_file]


def assert_holds(trunk, tensors):
    state = trunk.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)
    assert not trunk.training


@pytest.mark.parametrize("make", MAKERS)
def test_published_layouts(make, tmp_path):
    tensors = trunk_tensors(THIN)
    torch.save(make(tensors), tmp_path / "file.pth")
    assert_holds(load_trunk(tmp_path / "file.pth", THIN), tensors)


def test_torchvision_resnet_and_safetensors(tmp_path):
    with rng.seeded(2, "trunk"):
        state = torchvision.models.resnet18(weights=None).state_dict()
    tensors = {name: t for name, t in state.items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "file.pth")
    safetensors.torch.save_file(state, tmp_path / "file.safetensors")
    for name in ("file.pth", "file.safetensors"):
        assert_holds(load_trunk(tmp_path / name, RESNET18), tensors)


@pytest.mark.parametrize("make", MAKERS)
def test_missing_and_left_over_tensors_are_named(make, tmp_path):
    tensors = trunk_tensors(THIN)
    del tensors["layer2.0.bn1.bias"]
    tensors["layer9.weight"] = torch.zeros(1)
    torch.save(make(tensors), tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"layer2\.0\.bn1\.bias.*1 left over: layer9\.weight"):
        load_trunk(tmp_path / "file.pth", THIN)


def test_old_files_without_step_counters(tmp_path):
    tensors = trunk_tensors(THIN)
    old = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "file.pth")
    assert_holds(load_trunk(tmp_path / "file.pth", THIN), tensors)


@pytest.mark.parametrize("config", [RESNET18, TrunkConfig(width=8)])
def test_another_architecture_is_refused(config, tmp_path):
    torch.save(trunk_tensors(THIN), tmp_path / "file.pth")
    with pytest.raises(ValueError, match=f"does not fit trunk '{config.name}'.*another shape"):
        load_trunk(tmp_path / "file.pth", config)


def test_weights_of_a_training_that_diverged_are_refused(tmp_path):
    tensors = trunk_tensors(THIN)
    tensors["layer1.0.conv1.weight"][0] = torch.nan
    torch.save(tensors, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"1 not finite: layer1\.0\.conv1\.weight"):
        load_trunk(tmp_path / "file.pth", THIN)


def test_unknown_layout_lists_what_is_there(tmp_path):
    torch.save({"generator": {"weight": torch.zeros(1)}}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"no known layout; has generator.*MoCo"):
        load_trunk(tmp_path / "file.pth", THIN)


class Harmful:
    def __reduce__(self):
        return (eval, ("1 + 1",))


def test_pickled_objects_are_refused(tmp_path):
    torch.save({"state_dict": Harmful()}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        load_trunk(tmp_path / "file.pth", THIN)


def test_unreadable_files(tmp_path):
    for name in ("file.pth", "file.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ValueError, match=name):
            load_trunk(tmp_path / name, THIN)
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_trunk(tmp_path / "file.safetensors")


def test_own_files_know_their_architecture(tmp_path):
    with rng.seeded(1, "trunk"):
        trunk = build_trunk(THIN).to(memory_format=torch.channels_last)
    save_trunk(trunk, tmp_path / "trunk.safetensors")
    back = read_trunk(tmp_path / "trunk.safetensors")
    assert back.config == THIN
    assert_holds(back, trunk.state_dict())


def test_read_trunk_refuses_published_files(tmp_path):
    safetensors.torch.save_file(trunk_tensors(THIN), tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match="load_trunk"):
        read_trunk(tmp_path / "file.safetensors")


def images(count):
    shape = (count, 3, 16, 16)
    return torch.randint(0, 256, shape, generator=rng.generator(0, "images")).byte()


def test_untrained_trunk_is_calibrated():
    trunk = untrained_trunk(THIN, images(64), seed=3)
    out = trunk.bn1(trunk.conv1(normalise(images(64))))
    assert not trunk.training
    assert out.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_calibration_averages_whole_batches_equally():
    def mean(first, last):
        return untrained_trunk(THIN, images(192)[first:last], seed=3).bn1.running_mean

    torch.testing.assert_close(mean(0, 128), (mean(0, 64) + mean(64, 128)) / 2)
    assert torch.equal(mean(0, 130), mean(0, 128))


def test_untrained_trunk_depends_on_the_seed_only():
    torch.manual_seed(0)
    one = untrained_trunk(THIN, images(8), seed=3)
    torch.manual_seed(1)
    two, other = (untrained_trunk(THIN, images(8), seed=seed) for seed in (3, 4))
    assert torch.equal(one.conv1.weight, two.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    assert one.bn1.momentum == 0.1


def test_untrained_trunk_needs_two_images():
    with pytest.raises(ValueError, match="at least 2"):
        untrained_trunk(THIN, images(1), seed=0)
