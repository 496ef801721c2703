import math

import pytest
import torch

from raysweep.config import ConfigError, override
from raysweep.fewshot.matching_config import (
    Labelled,
    MatchingConfig,
    candidate_steps,
    learning_rate_factor,
)
from raysweep.nets.stylegan2 import StyleGan2Config
from tests.fewshot.matching_cases import BASE, DEEPLAB, generator, labelled, learner


def test_defaults_are_the_released_code_s():
    config = MatchingConfig()
    assert (config.annotator_lr, config.segmentor_lr, config.momentum) == (1e-3, 1e-3, 0.9)
    assert (config.labelled_batch, config.generated_batch) == (2, 2)
    assert (config.annotator_interval, config.segmentor_interval) == (1, 1)
    assert (config.steps, config.psi, config.block) == (150_000, 0.7, "head")
    assert config.normaliser == "released"


@pytest.mark.parametrize("objective", ["matching", "pseudo_labels"])
@pytest.mark.parametrize(("steps", "checkpoints"), [(1, 1), (10, 3), (7, 7)])
def test_candidates_are_evenly_spaced_and_end_with_the_training(objective, steps, checkpoints):
    config = override(
        BASE,
        {
            "objective": objective,
            "steps": steps,
            "checkpoints": checkpoints,
            "pretrain_steps": 5,
        },
    )
    kept = candidate_steps(config)
    before = 5 if objective == "pseudo_labels" else 0
    assert len(set(kept)) == checkpoints
    assert kept[-1] == config.total_steps == before + steps
    gaps = [b - a for a, b in zip((before, *kept), kept, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_learning_rates_fall_after_pretraining():
    changes = {"state": "pretrained", "pretrain_steps": 4, "steps": 10, "lr_floor": 0.2}
    config = override(BASE, changes)
    for step in range(15):
        part = max(step - 4, 0) / 10
        expected = 0.2 + 0.8 * (1 + math.cos(math.pi * part)) / 2
        assert learning_rate_factor(step, config=config) == pytest.approx(expected)
        assert learning_rate_factor(step, config=BASE) == 1


def test_only_what_is_read_is_relevant():
    def read(**changes):
        return set(override(DEEPLAB, changes).relevant())

    matching = read()
    every = set(MatchingConfig.model_fields)
    assert every - matching == {"maml", "pretrain_steps"}
    assert read(state="pretrained") - matching == {"pretrain_steps"}
    assert matching ^ read(objective="maml") == {"maml", "normaliser"}
    gone = {"block", "state", "segmentor_interval", "normaliser"}
    assert matching ^ read(objective="pseudo_labels") == gone | {"pretrain_steps"}
    gone |= {"segmentor", "segmentor_lr", "generated_batch", "psi", "cutoff", "augment"}
    assert matching - read(objective="inversion") == gone
    assert set(DEEPLAB.relevant()["segmentor"]) == {"network", "thin"}
    assert set(BASE.relevant()["segmentor"]) == {"network", "unet"}
    large = override(DEEPLAB, {"segmentor.network": "deeplab_resnet50"})
    assert set(large.relevant()["segmentor"]) == {"network"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints": 9}, "checkpoints = 9: at most one per step, steps = 8"),
        ({"block": "head"}, "block = 'head': segmentor.network = 'unet'"),
        ({"state": "scratch"}, "state = 'scratch': the U-Net has no trunk"),
        ({"segmentor_interval": 0}, "segmentor_interval = 0"),
        ({"annotator_interval": 0}, "annotator_interval = 0"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"objective": "simclr"}, "objective = 'simclr'"),
        ({"state": "frozen"}, "state = 'frozen'"),
    ],
)
def test_settings_that_contradict_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(BASE, changes)


IMAGES, MASKS = labelled()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Labelled(IMAGES[:0], MASKS[:0]), r"images \(shots, 3, height, width\) and as many masks"),
        (Labelled(IMAGES, MASKS[:3]), r"\(5, 3, 16, 16\) and masks \(3, 16, 16\)"),
        (Labelled(IMAGES, MASKS[:, :8]), r"masks \(5, 8, 16\)"),
        (Labelled(IMAGES[:, :1], MASKS), r"labelled set: \(5, 1, 16, 16\)"),
        (Labelled(IMAGES, MASKS * 2), "class 4 in a mask, but 3 classes"),
    ],
)
def test_labelled_sets_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        learner(labelled=given)


def test_codes_of_another_generator_are_refused():
    config = override(BASE, {"objective": "inversion"})
    with pytest.raises(ConfigError, match="codes of length 9, but this generator takes 24"):
        learner(config, labelled=Labelled(torch.zeros(5, 9), MASKS))
    with pytest.raises(ConfigError, match=r"takes codes \(shots, length\)"):
        learner(config, labelled=labelled())


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (BASE, {"resolution": 32}, "resolution = 32: the generator makes 16 px; take 16 or less"),
        (BASE, {"resolution": 3}, "resolution = 3: .*'unet' of these sizes needs 4 px"),
        (DEEPLAB, {"resolution": 7}, "resolution = 7: .*'deeplab_thin' of these sizes needs 8 px"),
        (BASE, {"cutoff": 7}, "cutoff = 7: the generator has 6 rows of w"),
        (BASE, {"layers": ["synthesis.b64.conv1"]}, "no module is called 'synthesis.b64.conv1'"),
        (DEEPLAB, {"generated_batch": 1}, "generated_batch = 1: .* at least 2"),
        (DEEPLAB, {"labelled_batch": 1}, "labelled_batch = 1: .* at least 2"),
    ],
)
def test_generator_and_segmentor_must_fit(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        learner(override(config, changes))


def test_a_generator_smaller_than_the_segmentor_is_refused():
    tiny = StyleGan2Config(
        resolution=16, z_dim=4, w_dim=4, mapping_layers=1, channel_base=64, channel_max=8
    )
    deep = override(BASE, {"segmentor.unet.widths": [2, 2, 2, 2, 2, 2]})
    with pytest.raises(ConfigError, match="resolution = 16: .*needs 32 px or more"):
        learner(deep, generator=generator(tiny))


def test_a_trunk_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="the trunk's tensors do not fit"):
        learner(DEEPLAB, trunk={"conv1.weight": torch.zeros(1)})
