import copy

import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict, override
from raysweep.fewshot.ensemble import votes
from raysweep.fewshot.pixel_classifier import (
    PixelBatches,
    PixelEnsembleFit,
    PixelFitConfig,
    sample_hypercolumn,
)
from raysweep.nets.hypercolumn import hypercolumn
from tests.reference import annotators as reference
from tests.reference.hypercolumn import resize

CHANNELS, CLASSES, PX, IMAGES = (2, 3, 4), 3, 6, 2
PIXELS = IMAGES * PX**2
BASE = PixelFitConfig(members=3, widths=(6, 5), batch=16, epochs=3, patience=3)


def levels(px=PX, *, images=IMAGES, dtype=torch.float32, sizes=None):
    generator = rng.generator(0, "levels")
    sizes = sizes or [(2 * px, px + 1), (px, px), (max(px // 2, 1), 1)]
    return [
        torch.randn(images, count, *size, generator=generator, dtype=torch.float64).to(dtype)
        for count, size in zip(CHANNELS, sizes, strict=True)
    ]


def masks():
    """Labels that the features tell most of: which of three channels is the largest."""
    column = hypercolumn(levels(), (PX, PX))
    return column[:, 4 : 4 + CLASSES].argmax(1).byte()


def batches_of(config, **options):
    return PixelBatches(levels(**options), masks(), config=config)


def learner_of(config):
    return PixelEnsembleFit(
        config, channels=CHANNELS, num_classes=CLASSES, pixels=PIXELS, device="cpu"
    )


def fitted(config, *, dtype=torch.float32, until=None):
    learner, batches, logged = learner_of(config), batches_of(config, dtype=dtype), []
    learner.mlps.to(dtype)
    while not learner.done and learner.steps_taken != until:
        logged.append(learner.step(batches.batch(learner.steps_taken)))
    return learner, logged


def tensors_of(learner):
    return [member.state_dict() for member in learner.ensemble().members]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("px", [1, 2, 5, 8, 13])
@pytest.mark.parametrize(
    "sizes",
    [[(8, 8), (4, 4), (2, 2)], [(1, 1), (13, 5), (3, 9)], [(20, 20), (16, 2), (5, 5)]],
)
def test_sampled_pixels_are_those_of_the_hypercolumn(px, sizes):
    maps = levels(sizes=sizes, dtype=torch.float64)
    image, y, x = torch.cartesian_prod(
        torch.arange(IMAGES), torch.arange(px), torch.arange(px)
    ).T.unbind()
    found = sample_hypercolumn(maps, image, y, x, px)
    expected = hypercolumn(maps, (px, px)).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(found, expected)
    planes = [resize(plane, px, px) for level in maps[::-1] for plane in level[1].tolist()]
    for pixel in found[image == 1].view(px, px, -1)[-1:, -1:].flatten(0, 1):
        assert pixel.tolist() == pytest.approx([plane[-1][-1] for plane in planes])


def test_sampling_keeps_the_shape_of_the_indices_and_calculates_in_float():
    index = torch.tensor([[0, 1, 1], [1, 0, 0]])
    half = [level.half() for level in levels()]
    found = sample_hypercolumn(half, index, index + 1, index + 2, PX)
    assert found.shape == (2, 3, sum(CHANNELS))
    assert found.dtype == torch.float32
    exact = sample_hypercolumn([level.float() for level in half], index, index + 1, index + 2, PX)
    assert torch.equal(found, exact)


def test_every_member_sees_every_pixel_once_per_pass_in_its_own_order():
    config = override(BASE, {"batch": 7})  # does not divide the pixels: batches cross the border
    batches = batches_of(config)
    drawn = [batches.batch(step) for step in range(2 * PIXELS // 7 + 1)]
    features = torch.cat([batch["feature"] for batch in drawn], dim=1)
    labels = torch.cat([batch["label"] for batch in drawn], dim=1)
    column = hypercolumn(levels(), (PX, PX)).permute(0, 2, 3, 1).flatten(0, 2)
    orders = []
    for member in range(3):
        distances = torch.cdist(
            features[member], column, compute_mode="donot_use_mm_for_euclid_dist"
        )
        assert float(distances.min(1).values.max()) < 1e-4
        order = distances.argmin(1)
        orders.append(order)
        assert torch.equal(labels[member], masks().flatten().long()[order])
        for first in (0, PIXELS):
            assert order[first : first + PIXELS].sort().values.tolist() == list(range(PIXELS))
        assert not torch.equal(order[:PIXELS], order[PIXELS : 2 * PIXELS])
    assert not torch.equal(orders[0], orders[1])


def test_a_batch_is_a_function_of_its_step():
    config = override(BASE, {"batch": 7})
    batches = batches_of(config)
    walked = [batches.batch(step) for step in range(15)]
    for step in (14, 3, 10):
        assert_same(batches_of(config).batch(step), walked[step])
        assert_same(batches.batch(step), walked[step])


@pytest.mark.parametrize(
    ("classes", "patience", "epochs"), [(3, 0, 9), (3, 2, 9), (3, 4, 9), (3, 500, 6), (2, 2, 5)]
)
def test_members_equal_single_mlps_fitted_alone(classes, patience, epochs):
    config = override(BASE, {"batch": 4, "patience": patience, "epochs": epochs})
    labels = masks().clamp(max=classes - 1)
    batches = PixelBatches(levels(dtype=torch.float64), labels, config=config)
    learner = PixelEnsembleFit(
        config, channels=CHANNELS, num_classes=classes, pixels=PIXELS, device="cpu"
    )
    learner.mlps.double()
    alone = []
    for member in learner.ensemble().members:
        net = reference.plain_mlp(sum(CHANNELS), (6, 5), classes, norm=True).double()
        reference.load(net, member.state_dict())
        alone.append(reference.Alone(net, lr=config.lr, pixels=PIXELS, patience=patience))
    while not learner.done:
        batch = batches.batch(learner.steps_taken)
        training = sum(not single.stopped for single in alone)
        losses = [
            single.step(features, own)
            for single, features, own in zip(alone, batch["feature"], batch["label"], strict=True)
        ]
        logged = learner.step(batch)
        if training == config.members:
            assert float(logged["loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        assert int(logged["training"]) == sum(not single.stopped for single in alone)
    stopped = [single.stopped for single in alone]
    assert all(stopped) or learner.steps_taken == -(-epochs * PIXELS // config.batch)
    assert any(stopped) == (patience < 500)
    for member, single in zip(learner.ensemble().members, alone, strict=True):
        plain = reference.plain_mlp(sum(CHANNELS), (6, 5), classes, norm=True).double()
        reference.load(plain, member.state_dict())
        for name, tensor in single.net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(
                    plain.state_dict()[name], tensor, atol=1e-6, rtol=1e-4, msg=name
                )


def test_no_member_stops_within_the_first_four_passes():
    config = override(BASE, {"patience": 0, "epochs": 50, "members": 8, "lr": 1e-9})
    learner, _ = fitted(config)
    first = 4 * PIXELS // config.batch
    assert first + 2 <= learner.steps_taken < first + 30


def test_prediction_of_the_ensemble_is_that_of_the_stacked_members():
    config = override(BASE, {"epochs": 20, "patience": 500, "lr": 0.02})
    learner, logged = fitted(config)
    ensemble, maps = learner.ensemble(), levels()
    scores = ensemble(maps, PX)
    rows = hypercolumn(maps, (PX, PX)).permute(0, 2, 3, 1).flatten(0, 2)
    stacked = copy.deepcopy(learner.mlps).eval()(rows.expand(3, -1, -1))
    expected = stacked.view(3, IMAGES, PX, PX, CLASSES).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    assert not scores.requires_grad
    right = (votes(scores).argmax(1) == masks()).float().mean()
    assert float(right) > 0.9
    assert float(logged[-1]["loss"]) < 0.5 * float(logged[0]["loss"])
    assert float(logged[-1]["accuracy"]) > 0.8


def test_a_finished_member_stays_as_it_is():
    config = override(BASE, {"patience": 1, "epochs": 50})
    learner, batches = learner_of(config), batches_of(config)
    kept = {}
    while not learner.done:
        learner.step(batches.batch(learner.steps_taken))
        for member in learner.finished:
            kept.setdefault(member, learner.mlps.member_tensors(member))
    assert sorted(kept) == [0, 1, 2]
    found = tensors_of(learner)
    for member in kept:
        assert_same(found[member], kept[member])
    last = [learner.mlps.member_tensors(member) for member in range(3)]
    moved = [not torch.equal(last[m]["first.weight"], found[m]["first.weight"]) for m in range(3)]
    assert any(moved)  # the others went on


def test_fitting_ends_with_the_passes():
    learner, logged = fitted(BASE)
    assert len(logged) == -(-3 * PIXELS // 16)
    with pytest.raises(ValueError, match="raise epochs"):
        learner.step(batches_of(BASE).batch(0))


@pytest.mark.parametrize("cut", [3, 75, 80])
def test_resumed_fit_equals_the_uninterrupted_one(cut):
    config = override(BASE, {"batch": 4, "epochs": 8, "patience": 4})
    straight, _ = fitted(config)
    first, _ = fitted(config, until=cut)
    state = copy.deepcopy(first.state_dict())
    resumed, batches = learner_of(config), batches_of(config)
    resumed.load_state_dict(state)
    while not resumed.done:
        resumed.step(batches.batch(resumed.steps_taken))
    assert resumed.steps_taken == straight.steps_taken
    assert torch.equal(resumed.lowest, straight.lowest)
    assert torch.equal(resumed.waited, straight.waited)
    for ours, theirs in zip(tensors_of(resumed), tensors_of(straight), strict=True):
        assert_same(ours, theirs)


CHANGES = {
    "members": 2,
    "widths": [6, 4],
    "batch": 12,
    "lr": 2e-3,
    "epochs": 4,
    "patience": 1,
    "seed": 1,
}


def test_every_setting_matters():
    base_config = override(BASE, {"epochs": 7})
    assert set(CHANGES) == set(PixelFitConfig.model_fields)

    def trace(config):
        learner, logged = fitted(config)
        return [float(scalars["loss"]) for scalars in logged], learner.finished.keys()

    base = trace(base_config)
    assert base == trace(base_config)
    for name, value in CHANGES.items():
        assert trace(override(base_config, {name: value})) != base, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": [4]}, r"widths = \(4,\): the MLP takes 2 positive numbers"),
        ({"widths": [4, 0]}, "128, 32"),
        ({"members": 0}, "members = 0"),
        ({"batch": 1}, "batch = 1"),
        ({"lr": 0.0}, "lr = 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(PixelFitConfig, settings)


@pytest.mark.parametrize("shape", [(IMAGES, 4, 5), (IMAGES + 1, 4, 4), (4, 4)])
def test_masks_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(2, px, px\)"):
        PixelBatches(levels(), torch.zeros(shape, dtype=torch.uint8), config=BASE)
