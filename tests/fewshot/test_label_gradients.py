import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from raysweep import rng
from raysweep.config import ConfigError, from_dict, override
from raysweep.fewshot.label_gradients import (
    labelled_gradient,
    matching_gradient,
    soft_cross_entropy,
)
from raysweep.fewshot.maml import MamlConfig, maml_gradient
from raysweep.fewshot.segmentors import DEEPLAB_BLOCKS, UNET_BLOCKS, build_segmentor, matched
from raysweep.nets.deeplab import seed_dropout
from raysweep.nets.fpn import Fpn, FpnConfig
from tests.fewshot.matching_cases import BASE, CLASSES, DEEPLAB

CASES = [(BASE, name) for name in UNET_BLOCKS] + [(DEEPLAB, name) for name in DEEPLAB_BLOCKS]
NAMES = [f"{config.segmentor.network}-{name}" for config, name in CASES]


class Scene:
    """A segmentor and an annotator in double precision, and what they look at."""

    def __init__(self, config, block):
        stream = rng.generator(1, "scene")
        px = self.px = 8 if config.segmentor.is_unet else 32
        with rng.seeded(0, "nets"):
            network = build_segmentor(config.segmentor, CLASSES, trunk=None)
            self.annotator = Fpn(FpnConfig(width=3), (2, 3), CLASSES).double().train()
        self.network = network.double().train()
        seed_dropout(network, seed=0, step=0, first=0)
        self.block = matched(network, block)
        network.requires_grad_(False)
        for weight in self.block.weights.values():
            weight.requires_grad_()

        def normal(*shape):
            return torch.randn(*shape, generator=stream, dtype=torch.float64)

        self.images, self.real = normal(2, 3, px, px), normal(2, 3, px, px)
        self.levels = [normal(2, 2, px, px), normal(2, 3, px // 2, px // 2)]
        self.masks = torch.randint(0, CLASSES, (2, px, px), generator=stream)
        self.directions = [normal(*each.shape) for each in self.annotator.parameters()]

    def held_out(self, moved):
        return F.cross_entropy(functional_call(self.network, dict(moved), (self.real,)), self.masks)

    def labels(self):
        return self.annotator(self.levels, self.px).softmax(1)

    def slope(self, loss):
        """Return the central difference along a direction of the annotator's parameters."""
        parameters, ends = list(self.annotator.parameters()), []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for parameter, direction in zip(parameters, self.directions, strict=True):
                    parameter += step * direction
            ends.append(float(loss()))
        return (ends[0] - ends[1]) / 2e-5

    def derivative(self, labels, by_labels):
        """Return the same slope by the chain rule."""
        gradients = torch.autograd.grad(labels, list(self.annotator.parameters()), by_labels)
        pairs = zip(gradients, self.directions, strict=True)
        return float(sum((gradient * direction).sum() for gradient, direction in pairs))


@pytest.mark.parametrize(("config", "block"), CASES, ids=NAMES)
def test_second_order_equals_finite_differences(config, block):
    scene = Scene(config, block)
    target = labelled_gradient(scene.network, scene.real, scene.masks, block=scene.block)

    def found(labels):
        return matching_gradient(
            scene.network,
            scene.images,
            labels,
            target,
            block=scene.block,
            normaliser="released",
        )

    labels = scene.labels()
    slope = scene.derivative(labels, found(labels).by_labels)
    assert slope == pytest.approx(scene.slope(lambda: found(scene.labels()).loss), rel=1e-5)
    assert abs(slope) > 1e-6


@pytest.mark.parametrize(("config", "block"), CASES, ids=NAMES)
def test_the_distance_is_that_of_plain_gradients(config, block):
    scene = Scene(config, block)
    target = labelled_gradient(scene.network, scene.real, scene.masks, block=scene.block)
    labels = F.one_hot(scene.masks, CLASSES).permute(0, 3, 1, 2).double()

    def distance(images):
        return float(
            matching_gradient(
                scene.network,
                images,
                labels,
                target,
                block=scene.block,
                normaliser="paper",
            ).loss
        )

    assert distance(scene.real) == pytest.approx(0, abs=1e-12)
    assert 0.01 < distance(scene.images) < 2


@pytest.mark.parametrize(("config", "block"), [(BASE, "output"), (BASE, "all"), (DEEPLAB, "head")])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_meta_learning_equals_finite_differences(config, block, steps):
    scene = Scene(config, block)
    scene.network.requires_grad_(False)
    maml = MamlConfig(inner_steps=steps, inner_lr=0.5)

    def found(labels):
        return maml_gradient(
            scene.network,
            scene.images,
            labels,
            scene.held_out,
            block=scene.block,
            config=maml,
        )

    labels = scene.labels()
    slope = scene.derivative(labels, found(labels).by_labels)
    assert slope == pytest.approx(scene.slope(lambda: found(scene.labels()).loss), rel=2e-4)
    assert abs(slope) > 1e-6


def test_inner_steps_are_gradient_steps_of_the_block():
    scene = Scene(BASE, "up")
    labels = scene.labels().detach()
    before = {name: each.clone() for name, each in scene.network.named_parameters()}
    found = maml_gradient(
        scene.network,
        scene.images,
        labels,
        scene.held_out,
        block=scene.block,
        config=MamlConfig(inner_steps=2, inner_lr=0.3),
    )
    for name, each in scene.network.named_parameters():
        assert torch.equal(each, before[name])
    chosen = list(scene.block.parameters.values())
    for each in chosen:
        each.requires_grad_()
    optimizer = torch.optim.SGD(chosen, lr=0.3)
    for _ in range(2):
        optimizer.zero_grad()
        soft_cross_entropy(scene.network(scene.images), labels).backward()
        optimizer.step()
    expected = F.cross_entropy(scene.network(scene.real), scene.masks)
    torch.testing.assert_close(found.loss, expected.detach())


def test_soft_cross_entropy_of_hard_labels_is_the_usual_one():
    scene = Scene(BASE, "all")
    logits = scene.network(scene.images)
    hard = F.one_hot(scene.masks, CLASSES).permute(0, 3, 1, 2)
    usual = F.cross_entropy(logits, scene.masks)
    torch.testing.assert_close(soft_cross_entropy(logits, hard), usual)


@pytest.mark.parametrize("change", [{"inner_steps": 0}, {"inner_lr": 0.0}])
def test_bad_inner_steps_are_refused(change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} = 0"):
        from_dict(MamlConfig, change)
    with pytest.raises(ConfigError, match=f"maml.{next(iter(change))} = 0"):
        override(BASE, {f"maml.{name}": value for name, value in change.items()})
