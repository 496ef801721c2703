import io

import pytest
import torch

from raysweep import collective
from raysweep.config import ConfigError, override
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.represent.ada_config import AdaConfig
from raysweep.represent.gan import Gan
from raysweep.represent.gan_config import GanConfig
from raysweep.represent.generators import sample
from tests.represent.gan_cases import APART, AUGMENTED, BASE, RECORDED, advance, images, same


def stored(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def trace(config, steps=5):
    learner = Gan(config, device="cpu")
    rows = [{k: float(v) for k, v in row.items()} for row in advance(learner, steps)]
    average = [float(value.double().square().sum()) for value in learner.average.parameters()]
    return rows, average


CHANGES = {
    "seed": 1,
    "gan.batch": 12,
    "gan.lr": 3e-3,
    "gan.r1_gamma": 5.0,
    "gan.r1_interval": 2,
    "gan.path_weight": 1.0,
    "gan.path_interval": 2,
    "gan.path_shrink": 1,
    "gan.path_decay": 0.5,
    "gan.mixing": 0.0,
    "gan.ema_kimg": 0.1,
    "gan.ema_rampup": 0.5,
    "gan.ada.enabled": True,
    "gan.network.resolution": 32,
    "gan.network.z_dim": 9,
    "gan.network.w_dim": 9,
    "gan.network.mapping_layers": 2,
    "gan.network.channel_base": 32,
    "gan.network.channel_max": 7,
    "gan.network.mbstd_group": 2,
}
ADA_CHANGES = {
    "target": 0.9,
    "interval": 3,
    "speed_kimg": 0.2,
    "initial_p": 0.4,
    "maximum_p": 0.5,
    "blit": False,
    "geometric": False,
    "colour": False,
}


def test_every_setting_matters():
    base = trace(BASE)
    assert base == trace(BASE)
    ours = {name.split(".")[1] for name in CHANGES if name.startswith("gan.")}
    assert ours == set(GanConfig.model_fields) - RECORDED - {"stylegan1"}  # those: test_generative
    network = {name.split(".")[2] for name in CHANGES if name.startswith("gan.network.")}
    assert network == set(StyleGan2Config.model_fields) - {"half_blocks"}  # a clamp, on the CPU
    for name, value in CHANGES.items():
        changes = {"gan.ada.initial_p": 0.5} if name == "gan.ada.enabled" else {}
        assert trace(override(BASE, {name: value} | changes)) != base, name


def test_every_setting_of_the_augmentation_matters():
    assert set(ADA_CHANGES) == set(AdaConfig.model_fields) - {"enabled"}
    start = override(AUGMENTED, {"seed": 2, "gan.ada.target": 0.1})  # p rises at first
    base = trace(start)
    assert base == trace(start)
    for name, value in ADA_CHANGES.items():
        assert trace(override(start, {f"gan.ada.{name}": value})) != base, name


LAZY = {"gan.path_interval": 2, "gan.r1_interval": 4, "gan.ema_rampup": 0.3, "gan.mixing": 0.5}


def test_resumed_equals_straight_through():
    config = override(AUGMENTED, LAZY)  # augmentation signs are half collected after 3 steps
    straight, first = Gan(config, device="cpu"), Gan(config, device="cpu")
    rows = advance(straight, 6)
    advance(first, 3)
    state = stored(first.state_dict())
    second = Gan(config, device="cpu")
    advance(second, 2, start=50)  # what it has learnt so far must not matter
    second.load_state_dict(state)
    torch.manual_seed(1234)  # nor the global generator
    assert same(advance(second, 3, start=3), rows[3:])
    assert same(second.state_dict(), straight.state_dict())
    assert straight.state_dict()["step"] == 6
    assert straight.path_mean > 0
    assert straight.ada.p != config.gan.ada.initial_p
    grids = [next(sample(each.average, 4, seed=0)) for each in (straight, second)]
    assert torch.equal(*grids)


def two_worker_trace(config, steps):
    learner = Gan(config, device="cpu")
    count = config.gan.batch // collective.size()
    own = slice(collective.rank() * count, (collective.rank() + 1) * count)
    rows = []
    for step in range(steps):
        row = learner.step({"image": images(config.gan.batch, seed=step)[own]})
        rows.append({name: collective.mean(value).item() for name, value in row.items()})
    return rows, stored(learner.state_dict())


@pytest.mark.dist
def test_two_workers_equal_one_with_the_whole_batch(dist_pool):
    config = override(AUGMENTED, APART | LAZY | {"gan.lr": 1e-3})
    learner = Gan(config, device="cpu")
    alone = [{name: value.item() for name, value in row.items()} for row in advance(learner, 5)]
    answers = dist_pool.run(two_worker_trace, config, 5)
    for rows, state in answers:
        for ours, theirs in zip(rows, alone, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4, rel=1e-4)
        torch.testing.assert_close(state["path_mean"], learner.path_mean, atol=1e-4, rtol=1e-4)
        assert state["ada"]["p"] == pytest.approx(learner.ada.p)
        for name, value in learner.average.state_dict().items():
            torch.testing.assert_close(state["average"][name], value, atol=1e-4, rtol=1e-3)
    assert same(answers[0][1], answers[1][1])
    assert {"loss/path", "loss/r1"} <= alone[4].keys()
    assert alone[4]["p"] != alone[0]["p"]


def poison(learner, phase):
    if phase == "generator":
        learner.generator.synthesis.b8.conv1.weight.data[0] = torch.nan
    elif phase == "path":
        learner.path_mean.fill_(torch.inf)
    elif phase == "discriminator":  # its bias moves logits without a bound; the others see finite
        learner._judge = lambda batch, which: torch.full(
            (len(batch), 1), 0.0 if which == "generator" else torch.nan
        ).requires_grad_()
    else:
        learner.phases[-1] = learner.phases[-1]._replace(
            loss=lambda batch: (batch.sum() * torch.inf, {})
        )


@pytest.mark.parametrize("phase", ["generator", "path", "discriminator", "r1"])
def test_a_loss_that_is_not_finite_is_named_and_not_learnt_from(phase):
    learner = Gan(override(BASE, {"gan.path_interval": 2, "gan.r1_interval": 2}), device="cpu")
    advance(learner, 2)
    poison(learner, phase)
    network = learner.generator if phase in ("generator", "path") else learner.discriminator
    seen, update = {}, learner.update

    def spy(which, batch):
        seen.clear()
        seen.update({name: value.clone() for name, value in which.network.state_dict().items()})
        return update(which, batch)

    learner.update = spy
    with pytest.raises(FloatingPointError, match=rf"{phase} loss is .* at 0\.016 kimg"):
        advance(learner, 1)
    for name, value in network.named_parameters():
        assert torch.equal(value.nan_to_num(), seen[name].nan_to_num())
    assert learner.steps_taken == 2


@pytest.mark.parametrize(
    "batch",
    [images(6), images(9), images(8, px=32), images(8)[:, :1], images(8)[0]],
    ids=["few", "many", "large", "grey", "single"],
)
def test_wrong_images_are_refused(batch):
    learner = Gan(BASE, device="cpu")
    with pytest.raises(ValueError, match="expected batch = 8 in all, at 16 px"):
        learner.step({"image": batch})
    assert learner.steps_taken == 0


@pytest.mark.parametrize("kimg", [0.0, 0.024, 0.1, 1.0])
@pytest.mark.parametrize("snapshots", [1, 3, 50])
def test_snapshots_are_evenly_spaced_and_end_with_the_training(kimg, snapshots):
    gan = override(BASE.gan, {"kimg": kimg, "snapshots": snapshots})
    kept = gan.snapshot_steps
    assert gan.steps == {0.0: 0, 0.024: 3, 0.1: 12, 1.0: 125}[kimg]
    assert kept[-1] == gan.steps
    assert len(set(kept)) == len(kept) == max(1, min(snapshots, gan.steps))
    gaps = [b - a for a, b in zip((0, *kept), kept, strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 6}, "gan.batch = 6: must be a multiple of gan.network.mbstd_group = 4"),
        ({"path_shrink": 3}, "path_shrink = 3: must divide batch = 8"),
        ({"path_interval": 0}, "path_interval = 0"),
        ({"mixing": 1.1}, "mixing = 1.1"),
        ({"path_decay": 0.0}, "path_decay = 0.0"),
        ({"network.resolution": 48}, "take a power of two from 16 to 1024, e.g. 64"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        override(BASE, {f"gan.{name}": value for name, value in change.items()})


@pytest.mark.gpu
def test_one_step_on_the_gpu_agrees_with_the_cpu():
    on_cpu, on_gpu = (advance(Gan(AUGMENTED, device=each), 1)[0] for each in ("cpu", "cuda"))
    for name, value in on_cpu.items():
        assert on_gpu[name].is_cuda  # what is averaged over workers must be where NCCL finds it
        assert float(on_gpu[name]) == pytest.approx(float(value), rel=2e-2, abs=2e-2), name


STYLEGAN1 = override(
    BASE,
    {
        "method": "stylegan1",
        "gan.path_weight": 0.0,
        "gan.stylegan1.resolution": 16,
        "gan.stylegan1.z_dim": 8,
        "gan.stylegan1.w_dim": 8,
        "gan.stylegan1.mapping_layers": 1,
        "gan.stylegan1.channel_base": 32,
        "gan.stylegan1.channel_max": 8,
    },
)


def test_the_first_stylegan_is_trained_by_the_same_learner():
    learner = Gan(STYLEGAN1, device="cpu")
    before = stored(learner.state_dict())
    rows = advance(learner, 3)
    assert "loss/path" not in rows[0]
    moved = [
        name
        for name, value in learner.generator.state_dict().items()
        if not torch.equal(value, before["generator"][name])
    ]
    assert any("epi1" in name for name in moved)
    again = Gan(override(STYLEGAN1, {"gan.stylegan1.blur": False}), device="cpu")
    assert not same(advance(again, 3), rows)


def test_the_first_stylegan_has_no_path_length():
    with pytest.raises(ConfigError, match="gan.path_weight = 2.0: StyleGAN has no path length"):
        override(STYLEGAN1, {"gan.path_weight": 2.0})
