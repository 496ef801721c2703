"""A student's loss, update, resumed training and predictions."""

import pytest
import torch
from torch import nn

from raysweep import rng
from raysweep.config import override
from raysweep.data.augment import normalise
from raysweep.distill import targets
from raysweep.distill.soft import quantise_soft
from raysweep.distill.student_config import build_student
from raysweep.nets.deeplab import seed_dropout
from tests.distill.student_cases import (
    BASE,
    CLASSES,
    MOVED,
    SOFT,
    UNET,
    advance,
    batch_of,
    student_of,
    trace,
)
from tests.reference import distill as reference
from tests.same import assert_same


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 3, 4, 5), (3, 7, 2, 3)])
@pytest.mark.parametrize("top", [1, 2, 7])
def test_soft_loss_is_that_of_the_definition(shape, top):
    generator = rng.generator(0, "loss", *shape)
    logits = 3 * torch.randn(shape, generator=generator)
    planes = quantise_soft(torch.randn(shape, generator=generator).softmax(1), top=top)
    classes, probabilities = planes[:, 0].long(), planes[:, 1].float() / 255
    dense = torch.zeros(shape).scatter_(1, classes, probabilities)
    ours = targets.soft_cross_entropy(logits, classes, probabilities)
    expected = reference.soft_loss(logits.tolist(), dense.tolist())
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_soft_loss_of_certain_labels_is_the_hard_loss():
    batch = batch_of()
    certain = nn.functional.one_hot(batch["mask"].long(), CLASSES).permute(0, 3, 1, 2)
    batch["soft"] = quantise_soft(certain.double(), top=2)
    losses = [
        float(student_of(override(BASE, change | MOVED)).step(batch)["loss"])
        for change in ({}, SOFT)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("change", [UNET, {}, SOFT])
def test_first_loss_and_accuracy_are_those_of_the_definition(change):
    config = override(BASE, change)
    learner = student_of(config)
    fresh = build_student(config, CLASSES)
    fresh.load_state_dict(learner.network.state_dict())
    seed_dropout(fresh, seed=config.seed, step=0, first=0)
    batch = batch_of(height=16, width=16)
    scalars = learner.step(batch)
    logits = fresh(normalise(batch["image"])).detach()
    if change == SOFT:
        dense = torch.zeros(4, CLASSES, 16, 16)
        dense.scatter_(1, batch["soft"][:, 0].long(), batch["soft"][:, 1] / 255)
    else:
        dense = nn.functional.one_hot(batch["mask"].long(), CLASSES).permute(0, 3, 1, 2)
    expected = reference.soft_loss(logits.tolist(), dense.tolist())
    assert scalars["loss"].item() == pytest.approx(expected, rel=1e-4)
    hits = (logits.argmax(1) == batch["mask"]).double().mean()
    assert scalars["accuracy"].item() == pytest.approx(float(hits), abs=2e-3)
    assert scalars["lr"].item() == pytest.approx(0.01)
    assert not any(value.requires_grad or value.dim() for value in scalars.values())


def test_gradients_are_clipped_by_value():
    learners = {clip: student_of(override(BASE, {"clip_value": clip})) for clip in (None, 1e-3)}
    largest = {}
    for clip, learner in learners.items():
        advance(learner, 1)
        grads = [p.grad for p in learner.network.parameters()]
        largest[clip] = max(float(grad.abs().max()) for grad in grads)
    assert largest[None] > 1e-3
    assert largest[1e-3] == pytest.approx(1e-3)
    for free, held in zip(*(x.network.parameters() for x in learners.values()), strict=True):
        torch.testing.assert_close(held.grad, free.grad.clamp(-1e-3, 1e-3))


def test_learning_rate_falls_when_validation_stands_still():
    config = override(BASE, {"plateau_patience": 2, "plateau_floor": 5e-4})
    learner, constant = student_of(config), student_of(BASE)
    seen = []
    for loss in (1.0, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.4):
        learner.validated(loss)
        constant.validated(loss)
        seen.append(learner.lr)
    assert seen == pytest.approx([0.01] * 4 + [0.001] * 3 + [5e-4] * 2)
    assert constant.lr == 0.01
    patient = student_of(override(config, {"plateau_patience": 4}))
    for _ in range(5):
        patient.validated(1.0)
    assert patient.lr == 0.01
    patient.validated(1.0)
    assert float(advance(patient, 1)[0]["lr"]) == pytest.approx(0.001)


@pytest.mark.parametrize("change", [UNET, {}, {"precision": "bf16"}])
def test_every_parameter_moves(change):
    learner = student_of(override(BASE, change))
    before = {n: p.detach().clone() for n, p in learner.network.named_parameters()}
    advance(learner, 1)
    for name, parameter in learner.network.named_parameters():
        # a bias before a batch norm has no effect; its gradient is rounding
        if not torch.equal(parameter.grad, torch.zeros_like(parameter)):
            assert not torch.equal(parameter, before[name]), name
    assert learner.steps_taken == 1


@pytest.mark.parametrize(
    "change",
    [{}, UNET, SOFT | MOVED, {"precision": "bf16"}, {"plateau_patience": 1, "clip_value": 0.01}],
)
def test_resumed_equals_straight_through(change):
    config = override(BASE, change)
    straight, first, second = (student_of(config) for _ in range(3))

    def train(learner, steps):
        logged = []
        for _ in range(steps):
            logged += advance(learner, 1)
            learner.validated(1.0)
        return logged

    logged = train(straight, 6)
    train(first, 3)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1234)  # the global generator must not matter
    assert_same(logged[3:], train(second, 3))
    assert_same(straight.state_dict(), second.state_dict())


def test_weights_and_training_ignore_the_global_generator():
    before = torch.get_rng_state()
    base = trace(override(BASE, MOVED))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert trace(override(BASE, MOVED)) == base


def test_wrap_receives_the_network_and_is_trained_through():
    calls = []

    class Counting(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, images):
            calls.append(1)
            return self.module(images)

    assert trace(BASE, wrap=Counting) == trace(BASE)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "change", [UNET | {"resolution": 24}, {"resolution": 48}, UNET | SOFT | {"resolution": 24}]
)
def test_learns_and_predicts(change):
    learner = student_of(override(BASE, change | {"lr": 0.02}))
    advance(learner, 100)
    batch = batch_of(1000)
    labels = learner.predict(batch["image"])
    assert labels.shape == (4, 20, 24)
    assert labels.dtype == torch.uint8
    for label in range(CLASSES):
        assert (labels == batch["mask"])[batch["mask"] == label].float().mean() > 0.7, label
    assert learner.network.training


def test_prediction_is_the_networks_at_the_size_of_the_image():
    learner = student_of(BASE)
    advance(learner, 2)
    state = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    images = batch_of(5, count=18, height=16, width=16)["image"]
    labels = learner.predict(images)
    assert_same(state, dict(learner.network.state_dict()))
    with torch.no_grad():
        scores = learner.network.eval()(normalise(images))
    assert torch.equal(labels, scores.argmax(1).byte())
    assert learner.predict(images[:0]).shape == (0, 16, 16)
