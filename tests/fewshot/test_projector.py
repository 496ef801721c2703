"""The fit of a projector: settings, update, learning rate, resumed training."""

import math

import pytest
import torch
from torch import nn

from raysweep import rng
from raysweep.config import override
from raysweep.data.augment import normalise
from raysweep.data.joint import JointConfig
from raysweep.features.representation import RawColour
from raysweep.fewshot.projector import FitConfig, candidate_steps, fit_batch, learning_rate, predict
from raysweep.nets.projectors import ProjectorConfig, build_projector
from tests.fewshot.projector_cases import (
    BASE,
    CLASSES,
    advance,
    blobs,
    learner_of,
    photos,
    thin_features,
    trace,
)
from tests.same import assert_same

CONV_B = {"projector.kind": "conv_b", "projector.widths": [4] * 9}


CHANGES = {
    "projector.kind": CONV_B,
    "projector.widths": [8, 7],
    "projector.standardise": True,
    "resolution": 18,
    "steps": 13,
    "batch": 3,
    "lr": 2e-3,
    "beta1": 0.9,
    "weight_decay": 0.1,
    "lr_floor": 0.5,
    "augment.crop_scale": [0.2, 0.5],
    "augment.ratio": [0.5, 0.6],
    "augment.crop_p": 0.0,
    "augment.jitter": [0.0, 0.0, 0.0, 0.5],
    "augment.jitter_p": 0.0,
    "augment.flip_p": 1.0,
    "shuffle": False,
    "clean_pixels": 30,
    "checkpoints": 3,
    "precision": "bf16",
    "seed": 1,
}


def test_every_setting_matters():
    base = trace(BASE)
    assert base == trace(BASE)
    elsewhere = {"method", "pixel", "layers", "matching"}  # tests/orchestration, test_matching*
    assert {name.split(".")[0] for name in CHANGES} == set(FitConfig.model_fields) - elsewhere
    for group, model in (("augment", JointConfig), ("projector", ProjectorConfig)):
        ours = {name.partition(".")[2] for name in CHANGES if name.startswith(f"{group}.")}
        assert ours == set(model.model_fields) - {"kernel", "dilations", "norm"}  # of "cnn"
    for name, value in CHANGES.items():
        config = override(BASE, value if isinstance(value, dict) else {name: value})
        if name == "checkpoints":
            assert candidate_steps(config) != candidate_steps(BASE)
            assert trace(config) == base  # it keeps more or less, it does not train otherwise
        else:
            assert trace(config) != base, name


def test_kind_matters_at_the_same_settings():
    config = override(BASE, {"resolution": 32, **CONV_B})
    conv_a = {"projector.kind": "conv_a", "projector.widths": [4] * 11}
    assert trace(config) != trace(override(config, conv_a))


def test_flip_pairs_matter_only_where_images_flip():
    always, never = (override(BASE, {"augment.flip_p": p}) for p in (1.0, 0.0))
    assert trace(always, flip_pairs=[(1, 2)]) != trace(always)
    assert trace(never, flip_pairs=[(1, 2)]) == trace(never)


@pytest.mark.parametrize(
    "change", [{}, {"shuffle": False}, {"precision": "bf16"}, {"projector.standardise": True}]
)
def test_resumed_equals_straight_through(change):
    config = override(BASE, change)
    straight, first, second = (learner_of(config) for _ in range(3))
    losses = advance(straight, 6)
    advance(first, 3)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1234)  # the global generator must not matter
    assert_same(losses[3:], advance(second, 3))
    assert_same(straight.state_dict(), second.state_dict())
    assert straight.steps_taken == 6


def test_weights_depend_on_the_seed_and_not_on_the_global_generator():
    first = learner_of(BASE).projector_state()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert_same(first, learner_of(BASE).projector_state())
    assert torch.equal(torch.get_rng_state(), before)
    other = learner_of(override(BASE, {"seed": 1})).projector_state()
    assert not torch.equal(first["first.weight"], other["first.weight"])


def test_projector_state_fits_a_projector_and_is_a_snapshot():
    features = thin_features()
    learner = learner_of(BASE, representation=features)
    state = learner.projector_state()
    build_projector(BASE.projector, features.channels, CLASSES).load_state_dict(state)
    assert all(tensor.is_contiguous() for tensor in state.values())
    before = {name: tensor.clone() for name, tensor in state.items()}
    advance(learner, 1)
    assert_same(state, before)
    assert not torch.equal(learner.projector_state()["second.weight"], before["second.weight"])


def test_representation_stays_as_it_is():
    features = thin_features()
    before = {name: value.clone() for name, value in features.trunk.state_dict().items()}
    learner = learner_of(BASE, representation=features)
    advance(learner, 2)
    assert_same(dict(features.trunk.state_dict()), before)
    assert not any(module.training for module in features.trunk.modules())
    assert learner.projector.training


def test_every_parameter_of_the_projector_moves():
    for change in ({}, {"resolution": 32, **CONV_B}):
        learner = learner_of(override(BASE, change))
        before = {n: p.detach().clone() for n, p in learner.projector.named_parameters()}
        advance(learner, 1)
        for name, parameter in learner.projector.named_parameters():
            assert not torch.equal(parameter, before[name]), name


def test_wrap_receives_the_projector_and_is_trained_through():
    calls = []

    class Counting(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *arguments):
            calls.append(1)
            return self.module(*arguments)

    assert trace(BASE, wrap=Counting) == trace(BASE)
    assert len(calls) == 3


def test_first_loss_and_accuracy_are_those_of_the_definition():
    config = override(BASE, {"augment.crop_p": 0, "augment.jitter_p": 0, "augment.flip_p": 0})
    features = thin_features()
    learner = learner_of(config, representation=features)
    fresh = build_projector(config.projector, features.channels, CLASSES)
    fresh.load_state_dict(learner.projector_state())
    batch = {"input": photos(2, 16, 16), "mask": blobs(2, 16, 16)}
    scalars = learner.step(batch)
    logits = fresh(features(normalise(batch["input"])), 16).detach()
    loss, hits = 0.0, 0
    for scores, mask in zip(logits, batch["mask"].tolist(), strict=True):
        for y, row in enumerate(mask):
            for x, label in enumerate(row):
                pixel = scores[:, y, x].tolist()
                loss += math.log(sum(math.exp(score) for score in pixel)) - pixel[label]
                hits += pixel.index(max(pixel)) == label
    assert scalars["loss"].item() == pytest.approx(loss / 512, rel=1e-4)
    assert scalars["accuracy"].item() == pytest.approx(hits / 512)
    assert not any(value.requires_grad or value.dim() for value in scalars.values())


def test_update_is_adam_with_the_released_settings():
    learner = learner_of(BASE)
    (group,) = learner.optimizer.param_groups
    assert type(learner.optimizer) is torch.optim.Adam  # weight decay is added to the gradient
    assert group["betas"] == (0.5, 0.999)
    assert group["eps"] == 1e-8
    assert group["weight_decay"] == 5e-4


def test_learns_a_tiny_set():
    # three colours with some noise, one per class
    masks = blobs(4, 16, 16)
    palette = torch.tensor([[40, 40, 40], [200, 60, 60], [60, 60, 200]])
    noise = torch.randint(-20, 21, (4, 16, 16, 3), generator=rng.generator(0, "noise"))
    images = (palette[masks.long()] + noise).permute(0, 3, 1, 2).byte().contiguous()
    config = override(BASE, {"steps": 60, "lr": 0.02, "augment.jitter_p": 0.0})
    learner = learner_of(config, representation=RawColour())
    logged = [learner.step(fit_batch(images, masks, step=s, config=config)) for s in range(60)]
    losses = [float(scalars["loss"]) for scalars in logged]
    assert sum(losses[-5:]) / 5 < 0.3 * losses[0]
    labels = predict(
        learner.representation, learner.projector.eval(), images, resolution=16, out_px=16
    )
    assert (labels == masks).float().mean() > 0.97


def test_learning_rate_falls_along_half_a_cosine():
    config = override(BASE, {"steps": 100, "lr": 0.5, "lr_floor": 0.1})
    rates = [learning_rate(step, config=config) for step in range(101)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.05)
    assert rates[50] == pytest.approx((0.5 + 0.05) / 2)
    assert rates[25] == pytest.approx(0.05 + 0.45 * (1 + math.sqrt(0.5)) / 2)
    assert rates == sorted(rates, reverse=True)
    flat = override(config, {"lr_floor": 1.0})
    assert learning_rate(70, config=flat) == pytest.approx(0.5)


def test_the_released_schedule_ends_at_its_floor():
    assert FitConfig().lr_floor == pytest.approx(0.2**3 * 0.1)


def test_each_step_uses_and_reports_its_learning_rate():
    learner = learner_of(BASE)
    for step, scalars in enumerate(advance(learner, 3)):
        expected = learning_rate(step, config=BASE)
        assert scalars["lr"].item() == pytest.approx(expected)
    assert learner.optimizer.param_groups[0]["lr"] == expected


@pytest.mark.parametrize("steps", [1, 2, 7, 12, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_candidates_are_evenly_spaced_and_the_last_is_at_the_end(steps, count):
    if count > steps:
        with pytest.raises(ValueError, match=f"checkpoints = {count}: at most one per step"):
            FitConfig(steps=steps, checkpoints=count)
        return
    found = candidate_steps(FitConfig(steps=steps, checkpoints=count))
    assert len(found) == count
    assert found[-1] == steps
    gaps = [after - before for before, after in zip((0, *found), found, strict=False)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.gpu
def test_one_step_on_the_gpu_agrees_with_the_cpu():
    batch = {"input": photos(2), "mask": blobs(2)}
    config = override(BASE, {"clean_pixels": 30})
    on_cpu = learner_of(config).step(batch)["loss"].item()
    features = thin_features()
    features.trunk.cuda()
    learner = learner_of(config, representation=features, device="cuda")
    on_gpu = {name: value.cuda() for name, value in batch.items()}
    assert learner.step(on_gpu)["loss"].item() == pytest.approx(on_cpu, abs=2e-2)
