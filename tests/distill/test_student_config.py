"""Settings of a student: each matters, and what cannot be used is refused."""

import pytest
import torch

from raysweep.config import ConfigError, from_dict, override, to_dict
from raysweep.data.joint import JointConfig
from raysweep.distill.student_config import (
    StudentConfig,
    build_student,
    candidate_steps,
    total_steps,
)
from raysweep.nets.deeplab import ThinConfig
from tests.distill.student_cases import BASE, CLASSES, MOVED, UNET, student_of, trace

CHANGES = {
    "network": "unet",
    "thin.trunk_width": 5,
    "thin.head_width": 7,
    "thin.rates": [1, 1],
    "thin.output_stride": 4,
    "resolution": 24,
    "lr": 2e-3,
    "beta1": 0.5,
    "weight_decay": 0.1,
    "loss": "soft",
    "clip_value": 1e-3,
    "augment": to_dict(JointConfig()),
    "precision": "bf16",
    "seed": 1,
}


ELSEWHERE = {
    "unet",
    "batch",
    "epochs",
    "steps",
    "plateau_patience",
    "plateau_floor",
    "checkpoints",  # below
    "shuffle_buffer",  # tests/orchestration/test_distilling.py
}


def test_every_setting_matters():
    base = trace(BASE)
    assert base == trace(BASE)
    assert {name.split(".")[0] for name in CHANGES} | ELSEWHERE == set(StudentConfig.model_fields)
    assert {n.partition(".")[2] for n in CHANGES if "thin." in n} == set(ThinConfig.model_fields)
    for name, value in CHANGES.items():
        assert trace(override(BASE, {name: value})) != base, name


def test_candidates_are_evenly_spaced_and_end_with_the_training():
    config = override(BASE, {"epochs": 5, "checkpoints": 3})  # 5 epochs of 2 batches of 4
    assert candidate_steps(config, rows=9) == (3, 6, 10)
    assert candidate_steps(override(config, {"checkpoints": 1}), rows=9) == (10,)
    assert candidate_steps(override(config, {"checkpoints": 99}), rows=9) == tuple(range(1, 11))


def test_widths_of_the_unet_matter():
    unet = override(BASE, UNET)
    assert trace(override(unet, {"unet.widths": [3, 4, 6]})) != trace(unet)
    assert trace(override(unet, {"thin.trunk_width": 9})) == trace(unet)


def test_augmentation_settings_matter():
    base = override(BASE, MOVED)
    for name, value in {
        "crop_scale": [0.2, 0.5],
        "ratio": [0.5, 0.6],
        "crop_p": 0.0,
        "jitter": [0.0, 0.0, 0.0, 0.5],
        "jitter_p": 0.0,
        "flip_p": 1.0,
    }.items():
        assert trace(override(base, {f"augment.{name}": value}), 2) != trace(base, 2), name


def test_length_is_steps_or_whole_epochs():
    assert total_steps(BASE, rows=39) == 2 * 9
    assert total_steps(override(BASE, {"epochs": 3}), rows=39) == 27
    assert total_steps(override(BASE, {"batch": 5}), rows=39) == 14
    assert total_steps(override(BASE, {"epochs": None, "steps": 11}), rows=39) == 11
    with pytest.raises(ConfigError, match="batch = 4: the shards hold 3 images"):
        total_steps(BASE, rows=3)


def test_defaults_are_the_papers():
    config = StudentConfig()
    assert (config.network, config.resolution, config.batch) == ("deeplab_resnet101", 512, 8)
    assert (config.lr, config.epochs, config.loss) == (0.001, 2, "hard")
    (group,) = student_of(BASE).optimizer.param_groups
    assert type(student_of(BASE).optimizer) is torch.optim.Adam
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.0)
    assert config.unet.widths == (64, 128, 256, 512, 512)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 5}, "epochs = 2, steps = 5: one of the two"),
        ({"epochs": None}, "epochs = None, steps = None: one of the two"),
        ({"resolution": 7}, "resolution = 7: deeplab_thin of these sizes needs 8 px"),
        ({"network": "unet", "resolution": 3}, "resolution = 3: unet of these sizes needs 4 px"),
        ({"batch": 1}, "batch = 1: deeplab_thin trains on two or more"),
        ({"lr": 0.0}, "lr"),
        ({"clip_value": 0.0}, "clip_value"),
        ({"loss": "both"}, "loss"),
        ({"network": "deeplab"}, "network"),
    ],
)
def test_refuses_settings(change, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        override(BASE, change)


@pytest.mark.parametrize("network", ["deeplab_resnet101", "deeplab_resnet50"])
def test_large_networks_are_those_asked_for(network):
    with torch.device("meta"):
        net = build_student(StudentConfig(network=network), CLASSES)
    blocks = 23 if network == "deeplab_resnet101" else 6
    assert len(net.blocks()["layer3"]) == blocks
    assert net.classes.out_channels == CLASSES


def test_config_survives_json():
    config = override(BASE, MOVED | UNET)
    assert from_dict(StudentConfig, to_dict(config)) == config
