import pytest
import torch
from torch import nn

from raysweep import collective, rng
from raysweep.config import override
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.represent.config import RepresentConfig, SimsiamConfig
from raysweep.represent.simsiam import Simsiam, negative_cosine, spread
from tests.reference import contrastive as reference

BASE = RepresentConfig(
    method="simsiam",
    trunk=TrunkConfig(width=4),
    simsiam=SimsiamConfig(dim=16, predictor_hidden=8),
    lr=1.0,
    warmup_steps=1,
    steps=40,
    batch=8,
    resolution=16,
    bn_groups=2,
)


def images(count=8, seed=0):
    shape = (count, 3, 20, 20)
    return torch.randint(0, 256, shape, generator=rng.generator(seed, "images")).byte()


def run(config, steps=3):
    learner = Simsiam(config, device="cpu")
    return learner, [
        float(learner.step({"image": images()[: config.batch]})["loss"]) for _ in range(steps)
    ]


@pytest.mark.parametrize(("batch", "dim"), [(1, 1), (1, 4), (5, 3)])
def test_loss_is_the_negative_cosine_without_gradient_to_targets(batch, dim):
    p, z = torch.randn(2, batch, dim, generator=rng.generator(0, "rows")).unbind(0)
    p, z = p.clone().requires_grad_(), z.clone().requires_grad_()
    loss = negative_cosine(p, z)
    expected = reference.negative_cosine(p.tolist(), z.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert p.grad is not None
    assert z.grad is None


@pytest.mark.parametrize(("batch", "dim"), [(2, 1), (5, 3), (9, 16)])
def test_spread_equals_the_definition(batch, dim):
    rows = torch.randn(batch, dim, generator=rng.generator(1, "rows"))
    assert spread(rows).item() == pytest.approx(reference.spread(rows.tolist()), rel=1e-4)


def test_spread_tells_collapse_from_health():
    rows = torch.randn(512, 64, generator=rng.generator(1, "rows"))
    assert spread(rows).item() == pytest.approx(1, abs=0.05)
    assert spread(rows[:1].expand(512, -1)).item() == pytest.approx(0, abs=1e-5)


def test_step_is_symmetric_in_the_views(monkeypatch):
    learner = Simsiam(BASE, device="cpu")
    first, second = torch.randn(2, 8, 3, 16, 16, generator=rng.generator(0, "v")).unbind(0)
    p1, p2, z1, z2 = learner.net(first, second)
    monkeypatch.setattr("raysweep.represent.contrastive.two_views", lambda *a, **k: (first, second))
    loss = learner.step({"image": images()})["loss"].item()
    rows = [t.tolist() for t in (p1, p2, z1, z2)]
    forward = reference.negative_cosine(rows[0], rows[3])
    back = reference.negative_cosine(rows[1], rows[2])
    assert loss == pytest.approx((forward + back) / 2, rel=1e-4)


def test_network_is_the_official_one():
    net = Simsiam(BASE, device="cpu").net
    assert all(
        block[-1].bn2.weight.eq(0).all() for block in net.trunk.children() if is_stage(block)
    )
    linears = [m for m in net.projector if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in linears] == [(32, 32), (32, 32), (16, 32)]
    assert [m.bias is None for m in linears] == [True, True, False]
    assert not linears[-1].bias.requires_grad
    assert not net.projector[-1].affine
    assert [tuple(m.weight.shape) for m in net.predictor if isinstance(m, nn.Linear)] == [
        (8, 16),
        (16, 8),
    ]


def is_stage(module):
    return isinstance(module, nn.Sequential)


def test_learning_rate_scales_with_the_batch():
    learner, _ = run(override(BASE, {"simsiam.constant_predictor_lr": True}), steps=0)
    logged = [learner.step({"image": images()})["lr"].item() for _ in range(10)]
    assert logged[0] == pytest.approx(8 / 256)
    encoder, predictor = learner.optimizer.param_groups
    assert encoder["lr"] < 0.9 * 8 / 256
    assert predictor["lr"] == pytest.approx(8 / 256)
    follower, _ = run(BASE, steps=10)
    assert follower.optimizer.param_groups[1]["lr"] == follower.optimizer.param_groups[0]["lr"]


def test_frozen_bias_stays():
    learner = Simsiam(BASE, device="cpu")
    before = learner.net.projector[-2].bias.clone()
    for _ in range(3):
        learner.step({"image": images()})
    assert torch.equal(learner.net.projector[-2].bias, before)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_equals_straight_through(optimizer):
    config = override(BASE, {"optimizer": optimizer, "lr": 0.3})
    straight, _ = run(config, steps=6)
    first, _ = run(config, steps=3)
    second = Simsiam(config, device="cpu")
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1234)
    for _ in range(3):
        second.step({"image": images()})
    ours, theirs = straight.state_dict(), second.state_dict()
    assert all(torch.equal(ours["net"][k], theirs["net"][k]) for k in ours["net"])
    assert ours["step"] == theirs["step"] == 6
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    for index, entry in ours["optimizer"]["state"].items():
        for name, value in entry.items():
            assert torch.equal(value, theirs["optimizer"]["state"][index][name])


def test_loss_falls_and_nothing_collapses():
    easy = {"crop_scale": [0.7, 1.0], "jitter": [0.0] * 4, "grayscale_p": 0.0, "blur_p": 0.0}
    changes = {f"views.{name}": value for name, value in easy.items()}
    changes |= {"batch": 32, "bn_groups": 1, "steps": 60}
    learner = Simsiam(override(BASE, changes), device="cpu")
    blocks = torch.randint(0, 256, (32, 3, 2, 2), generator=rng.generator(0, "blocks")).byte()
    photos = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    logged = [learner.step({"image": photos}) for _ in range(60)]
    losses = [float(scalars["loss"]) for scalars in logged]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.3
    assert min(float(scalars["std"]) for scalars in logged) > 0.8


CHANGES = {
    "trunk.width": 5,
    "optimizer": "adamw",
    "lr": 2.0,
    "weight_decay": 0.1,
    "sgd_momentum": 0.0,
    "warmup_steps": 3,
    "steps": 9,
    "batch": 4,
    "resolution": 18,
    "views.flip_p": 1.0,
    "bn_groups": 1,
    "precision": "bf16",
    "seed": 1,
    "simsiam.dim": 17,
    "simsiam.predictor_hidden": 9,
    "simsiam.constant_predictor_lr": True,
}


def test_every_setting_matters():
    _, base = run(BASE, steps=4)
    assert base == run(BASE, steps=4)[1]
    fields = {name.split(".")[0] for name in CHANGES}
    assert fields == set(RepresentConfig.model_fields) - {"method", "moco", "weights", "gan"}
    ours = {name.partition(".")[2] for name in CHANGES if name.startswith("simsiam.")}
    assert ours == set(SimsiamConfig.model_fields)
    for name, value in CHANGES.items():
        assert run(override(BASE, {name: value}), steps=4)[1] != base, name


def test_trunk_state_fits_a_trunk():
    learner, _ = run(BASE, steps=1)
    trunk = build_trunk(BASE.trunk)
    trunk.load_state_dict(learner.trunk_state())
    assert torch.equal(trunk.conv1.weight, learner.net.trunk.conv1.weight)


def two_worker_trace(config, steps):
    learner = Simsiam(config, device="cpu", wrap=nn.parallel.DistributedDataParallel)
    count = config.batch // collective.size()
    own = slice(collective.rank() * count, (collective.rank() + 1) * count)
    return [
        collective.mean(learner.step({"image": images()[own]})["loss"]).item() for _ in range(steps)
    ]


@pytest.mark.dist
def test_two_workers_equal_one_with_two_groups(dist_pool):
    config = override(BASE, {"lr": 0.3})
    _, alone = run(config, steps=5)
    for losses in dist_pool.run(two_worker_trace, override(config, {"bn_groups": 1}), 5):
        assert losses == pytest.approx(alone, abs=1e-5)
