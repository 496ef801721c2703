import math

import pydantic
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from raysweep import collective, rng
from raysweep.config import override
from raysweep.nets.resnet import TrunkConfig, build_trunk
from raysweep.represent import contrastive
from raysweep.represent.config import MocoConfig, RepresentConfig
from raysweep.represent.moco import Moco, follow, similarities
from tests.reference.contrastive import info_nce
from tests.same import assert_same

BASE = RepresentConfig(
    method="moco",
    trunk=TrunkConfig(width=4),
    moco=MocoConfig(dim=8, hidden=16, queue=32, momentum=0.9),
    lr=0.1,
    warmup_steps=1,
    steps=40,
    batch=8,
    resolution=16,
    bn_groups=2,
)


def images(count=8, seed=0):
    shape = (count, 3, 20, 20)
    return torch.randint(0, 256, shape, generator=rng.generator(seed, "images")).byte()


def trace(config, steps=3):
    learner = Moco(config, device="cpu")
    return [float(learner.step({"image": images(config.batch)})["loss"]) for _ in range(steps)]


def unit_rows(count, dim, seed):
    return F.normalize(torch.randn(count, dim, generator=rng.generator(seed, "rows")), dim=1)


@pytest.mark.parametrize(("batch", "dim", "negatives"), [(1, 1, 1), (1, 5, 3), (4, 3, 7)])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_loss_is_info_nce(batch, dim, negatives, temperature):
    queries, keys = unit_rows(batch, dim, 0), unit_rows(batch, dim, 1)
    queue = unit_rows(negatives, dim, 2)
    logits = similarities(queries, keys, queue=queue) / temperature
    ours = F.cross_entropy(logits, torch.zeros(batch, dtype=torch.long))
    expected = info_nce(queries.tolist(), keys.tolist(), queue.tolist(), temperature)
    assert ours.item() == pytest.approx(expected, rel=1e-4)


def test_key_encoder_follows_parameters_and_not_buffers():
    key, query = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(query.weight, 5.0)
    query.running_mean += 1
    expected = [0.9 * 1.0 + 0.1 * 5.0, 0.9 * (0.9 * 1.0 + 0.1 * 5.0) + 0.1 * 5.0]
    for value in expected:
        follow(key, query, momentum=0.9)
        torch.testing.assert_close(key.weight.data, torch.full((3,), value))
    assert key.running_mean.eq(0).all()


def test_key_encoder_starts_as_the_query_encoder_and_lags_behind():
    learner = Moco(BASE, device="cpu")
    pairs = list(zip(learner.query.parameters(), learner.key.parameters(), strict=True))
    assert all(torch.equal(q, k) for q, k in pairs)
    start = [k.clone() for _, k in pairs]
    learner.step({"image": images()})
    after_one = [q.detach().clone() for q, _ in pairs]
    assert all(torch.equal(k, s) for (_, k), s in zip(pairs, start, strict=True))
    learner.step({"image": images()})
    for (_, k), s, q in zip(pairs, start, after_one, strict=True):
        torch.testing.assert_close(k.data, 0.9 * s + 0.1 * q)
    assert all(k.grad is None for k in learner.key.parameters())


def test_queue_holds_the_last_keys_in_order(monkeypatch):
    learner, seen = Moco(BASE, device="cpu"), []
    enqueue = learner._enqueue
    monkeypatch.setattr(learner, "_enqueue", lambda keys: (seen.append(keys), enqueue(keys)))
    first = learner.queue.clone()
    learner.step({"image": images()})
    assert torch.equal(learner.queue, torch.cat([seen[0], first[8:]]))
    for _ in range(5):
        learner.step({"image": images()})
    assert learner.pointer == 16
    assert torch.equal(learner.queue.roll(-16, 0), torch.cat(seen[-4:]))
    torch.testing.assert_close(learner.queue.norm(dim=1), torch.ones(32))


def test_loss_does_not_see_its_own_keys_as_negatives(monkeypatch):
    learner = Moco(BASE, device="cpu")
    queues = []

    def spy(queries, keys, *, queue):
        queues.append(queue.clone())
        return similarities(queries, keys, queue=queue)

    monkeypatch.setattr("raysweep.represent.moco.similarities", spy)
    before = learner.queue.clone()
    learner.step({"image": images()})
    assert torch.equal(queues[0], before)
    assert not torch.equal(learner.queue, before)


def test_keys_come_back_in_the_order_of_their_images():
    config = override(BASE, {"bn_groups": 1})  # one group: shuffling changes no statistics
    learner = Moco(config, device="cpu")
    view = torch.randn(8, 3, 16, 16, generator=rng.generator(0, "view"))
    expected = F.normalize(learner.key(view), dim=1)
    torch.testing.assert_close(learner._encode_keys(view), expected, atol=1e-5, rtol=0)


def test_keys_are_normalised_among_other_images_than_their_queries():
    learner = Moco(BASE, device="cpu")
    view = torch.randn(8, 3, 16, 16, generator=rng.generator(0, "view"))
    unshuffled = F.normalize(learner.key(view), dim=1)
    assert not torch.allclose(learner._encode_keys(view), unshuffled, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_equals_straight_through(optimizer):
    config = override(BASE, {"optimizer": optimizer})
    straight = Moco(config, device="cpu")
    for _ in range(6):
        straight.step({"image": images()})
    first, second = Moco(config, device="cpu"), Moco(override(config, {"seed": 0}), device="cpu")
    for _ in range(3):
        first.step({"image": images()})
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1234)  # the global generator must not matter
    for _ in range(3):
        second.step({"image": images()})
    assert_same(straight.state_dict(), second.state_dict())


def test_learns_to_tell_a_tiny_set_apart():
    easy = {"crop_scale": [0.7, 1.0], "jitter": [0.0] * 4, "grayscale_p": 0.0, "blur_p": 0.0}
    changes = {f"views.{name}": value for name, value in easy.items()}
    changes |= {"batch": 32, "moco.queue": 64, "bn_groups": 1, "steps": 60}
    changes |= {"optimizer": "adamw", "lr": 0.01, "moco.head_batch_norm": True}
    learner = Moco(override(BASE, changes), device="cpu")
    blocks = torch.randint(0, 256, (32, 3, 2, 2), generator=rng.generator(0, "blocks")).byte()
    photos = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    logged = [learner.step({"image": photos}) for _ in range(60)]
    losses = [float(scalars["loss"]) for scalars in logged]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.8
    assert sum(losses[-10:]) / 10 < math.log(65) - 1
    assert sum(float(scalars["accuracy"]) for scalars in logged[-10:]) / 10 > 5 / 65


def test_trunk_state_fits_a_trunk_and_is_a_snapshot():
    learner = Moco(BASE, device="cpu")
    state = learner.trunk_state()
    build_trunk(BASE.trunk).load_state_dict(state)
    before = state["conv1.weight"].clone()
    learner.step({"image": images()})
    assert torch.equal(state["conv1.weight"], before)
    assert not torch.equal(learner.trunk_state()["conv1.weight"], before)


CHANGES = {
    "trunk.width": 5,
    "trunk.name": "resnet18",
    "optimizer": "adamw",
    "lr": 0.2,
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
    "moco.dim": 9,
    "moco.hidden": 17,
    "moco.head_batch_norm": True,
    "moco.queue": 40,
    "moco.momentum": 0.0,
    "moco.temperature": 0.3,
}


def test_every_setting_matters():
    base = trace(BASE, steps=4)
    assert base == trace(BASE, steps=4)
    fields = {name.split(".")[0] for name in CHANGES}
    assert fields == set(RepresentConfig.model_fields) - {"method", "simsiam", "weights", "gan"}
    ours = {name.partition(".")[2] for name in CHANGES if name.startswith("moco.")}
    assert ours == set(MocoConfig.model_fields)
    for name, value in CHANGES.items():
        extra = {"resolution": 32, "trunk.width": 16} if name == "trunk.name" else {}
        config = override(BASE, {**extra, name: value})
        reference = trace(override(BASE, extra), steps=4) if extra else base
        assert trace(config, steps=4) != reference, name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_learning_rate_warms_up_and_ends_at_zero(optimizer):
    config = override(BASE, {"warmup_steps": 4, "steps": 12, "lr": 1.0, "optimizer": optimizer})
    rates = [contrastive.learning_rate(s, peak=1.0, config=config) for s in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0, abs=1e-12)
    learner = Moco(config, device="cpu")
    logged = [learner.step({"image": images()})["lr"].item() for _ in range(3)]
    assert logged == pytest.approx(rates[:3])
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(rates[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moco.queue": 30}, "multiple of batch = 8, e.g. 32"),
        ({"resolution": 15}, "at least 16 px"),
        ({"warmup_steps": 40}, "less than steps = 40"),
        ({"bn_groups": 3}, "bn_groups = 3"),
        ({"bn_groups": 8}, "at least 2 images"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        override(BASE, change)
    with pytest.raises(pydantic.ValidationError):
        MocoConfig(temperature=0)


def test_wrong_batches_and_too_many_steps_are_refused():
    learner = Moco(override(BASE, {"steps": 2}), device="cpu")
    with pytest.raises(ValueError, match="got 6 images"):
        learner.step({"image": images(6)})
    for _ in range(2):
        learner.step({"image": images()})
    with pytest.raises(ValueError, match="steps = 2"):
        learner.step({"image": images()})


def two_worker_trace(config, steps):
    learner = Moco(config, device="cpu", wrap=nn.parallel.DistributedDataParallel)
    count = config.batch // collective.size()
    own = slice(collective.rank() * count, (collective.rank() + 1) * count)
    losses = [
        collective.mean(learner.step({"image": images(config.batch)[own]})["loss"]).item()
        for _ in range(steps)
    ]
    return losses, learner.queue


@pytest.mark.dist
@pytest.mark.parametrize("groups", [1, 2])
def test_two_workers_equal_one_with_twice_the_groups(dist_pool, groups):
    # batch norm over a handful of values magnifies rounding, so groups have 8 images of 4 pixels
    base = override(BASE, {"batch": 16 * groups, "resolution": 32, "lr": 0.03})
    learner = Moco(override(base, {"bn_groups": 2 * groups}), device="cpu")
    alone = [learner.step({"image": images(base.batch)})["loss"].item() for _ in range(5)]
    answers = dist_pool.run(two_worker_trace, override(base, {"bn_groups": groups}), 5)
    for losses, queue in answers:
        assert losses == pytest.approx(alone, abs=1e-5)
        torch.testing.assert_close(queue, learner.queue, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_one_step_on_the_gpu_agrees_with_the_cpu():
    on_cpu, on_gpu = (Moco(BASE, device=device) for device in ("cpu", "cuda"))
    losses = [float(m.step({"image": images()})["loss"]) for m in (on_cpu, on_gpu)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)
    low = Moco(override(BASE, {"precision": "bf16"}), device="cuda")
    assert float(low.step({"image": images()})["loss"]) == pytest.approx(losses[0], abs=0.3)
