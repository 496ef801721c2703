import pydantic
import pytest
import torch

from raysweep import collective, rng
from raysweep.config import ConfigError, override
from raysweep.represent.ada import AdaConfig, AdaController, draw_augmentation
from tests.reference import ada as reference

BASE = AdaConfig(target=0.5, interval=2, speed_kimg=0.1, initial_p=0.3)


def answers(steps=12, batch=8, seed=0):
    """Logits of a discriminator that grows sure of its real images, then loses them."""
    noise = torch.randn(steps, batch, generator=rng.generator(seed, "logits"))
    return noise + 3 * torch.sin(torch.arange(steps) / 2)[:, None]


def trace(config, logits=None):
    controller, values = AdaController(config), []
    for row in answers() if logits is None else logits:
        controller.observe(row)
        controller.step()
        values.append(controller.p)
    return values


@pytest.mark.parametrize("interval", [1, 3, 4])
@pytest.mark.parametrize(("target", "maximum_p"), [(0.6, None), (0.2, 0.35)])
@pytest.mark.parametrize(("speed_kimg", "initial_p"), [(0.1, 0.0), (0.02, 0.3)])
def test_p_follows_the_definition(interval, target, maximum_p, speed_kimg, initial_p):
    config = AdaConfig(
        target=target,
        interval=interval,
        speed_kimg=speed_kimg,
        initial_p=initial_p,
        maximum_p=maximum_p,
    )
    settings = {"p": initial_p, "target": target, "interval": interval}
    settings |= {"speed_kimg": speed_kimg, "maximum_p": maximum_p}
    expected = reference.steer(answers().tolist(), **settings)
    assert trace(config) == pytest.approx(expected, abs=1e-9)
    assert len(set(expected)) > 1


def test_p_by_hand():
    config = AdaConfig(target=0.5, interval=2, speed_kimg=0.01)  # 4 images move p by 0.4
    sure, wrong = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -0.5])
    even = torch.tensor([[3.0], [-3.0]])
    rows = [sure, sure, sure, sure, sure, sure, wrong, sure, wrong, wrong, even, even]
    expected = [0.0, 0.4, 0.4, 0.8, 0.8, 1.2, 1.2, 0.8, 0.8, 0.4, 0.4, 0.0]
    assert trace(config, rows) == pytest.approx(expected)
    at_zero = AdaController(config)
    for _ in range(2):
        at_zero.observe(wrong)
        at_zero.step()
    assert at_zero.p == 0


def test_on_target_p_stays():
    logits = torch.tensor([1.0, 1.0, 1.0, -1.0])  # mean sign 0.5
    assert trace(BASE, [logits] * 4) == [0.3] * 4


def test_answers_of_several_numbers_count_as_one_image():
    rows = answers()
    as_maps = [row[:, None, None].expand(-1, 2, 3) for row in rows]
    assert trace(BASE, as_maps) == trace(BASE, rows)
    assert trace(BASE, [row[:, None] for row in rows]) == trace(BASE, rows)


def test_update_without_images_is_refused():
    controller = AdaController(override(BASE, {"interval": 1}))
    with pytest.raises(ValueError, match="observe"):
        controller.step()


@pytest.mark.parametrize("cut", [4, 5])  # on an update, between two
def test_resumed_equals_straight_through(cut):
    straight, first = AdaController(BASE), AdaController(BASE)
    rows = answers()
    for index, row in enumerate(rows):
        for controller in [straight] + [first] * (index < cut):
            controller.observe(row)
            controller.step()
    second = AdaController(override(BASE, {"initial_p": 0.9}))
    state = first.state_dict()
    first.observe(rows[0])  # must not reach into the saved state
    second.load_state_dict(state)
    for row in rows[cut:]:
        second.observe(row)
        second.step()
    ours, theirs = straight.state_dict(), second.state_dict()
    assert torch.equal(ours.pop("sums"), theirs.pop("sums"))
    assert ours == theirs
    assert ours["p"] != BASE.initial_p


def test_observed_answers_need_no_graph():
    controller = AdaController(BASE)
    logits = answers()[0].requires_grad_()
    controller.observe(logits)
    assert not controller.state_dict()["sums"].requires_grad


CHANGES = {
    "enabled": False,
    "target": 0.9,
    "interval": 3,
    "speed_kimg": 0.2,
    "initial_p": 0.31,
    "maximum_p": 0.32,
    "blit": False,
    "geometric": False,
    "colour": False,
}


def everything(config):
    draw = draw_augmentation(
        4, 1.0, height=16, width=16, config=config, generator=rng.generator(0, "augment")
    )
    return trace(config), draw.inverse.tolist(), draw.colour.tolist()


def test_every_setting_matters():
    assert set(CHANGES) == set(AdaConfig.model_fields)
    base = everything(BASE)
    assert base == everything(BASE)
    for name, value in CHANGES.items():
        assert everything(override(BASE, {name: value})) != base, name


def test_switches_cover_all_transforms_and_leave_the_others_alone():
    values, inverse, colour = everything(BASE)
    eye3, eye4 = ([torch.eye(n).tolist()] * 4 for n in (3, 4))
    off = everything(override(BASE, {"colour": False}))
    assert (off[1], off[2]) == (inverse, eye4)
    still = everything(override(BASE, {"blit": False, "geometric": False}))
    assert (still[1], still[2]) == (eye3, colour)
    disabled = everything(override(BASE, {"enabled": False}))
    assert disabled == ([0.0] * len(values), eye3, eye4)


def test_blits_keep_the_grid_of_pixels():
    _, inverse, _ = everything(override(BASE, {"geometric": False}))
    turned = torch.tensor(inverse)
    torch.testing.assert_close(turned, turned.round(), atol=1e-6, rtol=0)
    _, inverse, _ = everything(override(BASE, {"blit": False}))
    assert (torch.tensor(inverse)[:, :2, :2].det() > 0).all()  # no flip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": 1.0}, "target = 1.0"),
        ({"target": 0.0}, "target = 0.0"),
        ({"interval": 0}, "interval = 0"),
        ({"speed_kimg": 0.0}, "speed_kimg = 0.0"),
        ({"initial_p": -0.1}, "initial_p = -0.1"),
        ({"maximum_p": 1.5}, "maximum_p = 1.5"),
        ({"maximum_p": 0.2}, "initial_p = 0.3: must be at most maximum_p = 0.2"),
        ({"blit": False, "geometric": False, "colour": False}, "at least one of blit"),
    ],
)
def test_impossible_settings_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        override(BASE, changes)


def test_switches_may_all_be_off_when_disabled():
    off = dict.fromkeys(("enabled", "blit", "geometric", "colour"), False)
    assert not override(BASE, off).enabled
    with pytest.raises(pydantic.ValidationError):
        AdaConfig(enabled=True, blit=False, geometric=False, colour=False)


def two_worker_trace(config):
    rows = answers()
    count = rows.shape[1] // collective.size()
    own = slice(collective.rank() * count, (collective.rank() + 1) * count)
    return trace(config, rows[:, own])


@pytest.mark.dist
def test_two_workers_equal_one(dist_pool):
    alone = trace(BASE)
    assert len(set(alone)) > 2
    first, second = dist_pool.run(two_worker_trace, BASE)
    assert first == second == pytest.approx(alone)
