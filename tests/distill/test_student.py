import pytest
import torch
from torch import nn

from raysweep import collective, rng
from raysweep.config import ConfigError, from_dict, override, to_dict
from raysweep.data.augment import normalise
from raysweep.data.joint import JointConfig, draw_joint, joint, move_images
from raysweep.distill import targets
from raysweep.distill.soft import quantise_soft
from raysweep.distill.student import Student
from raysweep.distill.student_config import (
    StudentConfig,
    build_student,
    candidate_steps,
    total_steps,
)
from raysweep.nets.deeplab import ThinConfig, seed_dropout
from raysweep.nets.unet import UnetConfig
from tests.reference import distill as reference

CLASSES = 3
BASE = StudentConfig(
    network="deeplab_thin",
    thin=ThinConfig(trunk_width=4, head_width=6, rates=(1, 2)),
    unet=UnetConfig(widths=(3, 4, 5)),
    resolution=16,
    batch=4,
    lr=0.01,
)
UNET = {"network": "unet"}
MOVED = {"augment": to_dict(JointConfig())}
SOFT = {"loss": "soft"}


def batch_of(step=0, *, count=4, height=20, width=24):
    """A dark and a bright class on a background, in noise, with soft labels."""
    generator = rng.generator(0, "batch", step)
    corners = torch.randint(0, 8, (count, 2), generator=generator).tolist()
    mask = torch.zeros(count, height, width, dtype=torch.uint8)
    for one, (y, x) in zip(mask, corners, strict=True):
        one[y : y + 9, x : x + 8] = 1
        one[y : y + 9, x + 8 : x + 16] = 2
    palette = torch.tensor([[120, 120, 120], [40, 60, 30], [210, 200, 220]])
    noise = torch.randint(-20, 21, (count, height, width, 3), generator=generator)
    image = (palette[mask.long()] + noise).permute(0, 3, 1, 2).byte().contiguous()
    logits = 5 * nn.functional.one_hot(mask.long(), CLASSES).permute(0, 3, 1, 2).float()
    logits = logits + torch.randn(logits.shape, generator=generator)
    return {"image": image, "mask": mask, "soft": quantise_soft(logits.softmax(1), top=2)}


def student_of(config, **options):
    return Student(config, **({"num_classes": CLASSES, "device": "cpu"} | options))


def advance(learner, steps):
    return [learner.step(batch_of(learner.steps_taken)) for _ in range(steps)]


def trace(config, steps=3, **options):
    return [float(scalars["loss"]) for scalars in advance(student_of(config, **options), steps)]


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


# settings

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


# loss and update


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


# resuming, seeds, workers


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


def as_worker(monkeypatch, rank, workers):
    monkeypatch.setattr(collective, "rank", lambda: rank)
    monkeypatch.setattr(collective, "size", lambda: workers)


def test_workers_see_the_images_that_one_worker_sees(monkeypatch):
    config, batch, seen = override(BASE, MOVED | SOFT), batch_of(), {}
    for workers in (1, 2):
        parts = []
        for rank in range(workers):
            as_worker(monkeypatch, rank, workers)
            learner, own = student_of(config, flip_pairs=[(1, 2)]), 4 // workers
            part = {k: v[rank * own : (rank + 1) * own] for k, v in batch.items()}
            images, labels = learner._prepare(part)
            parts.append((images, *labels))
            learner.step(part)
            dropout = learner.network.classifier[0].project[3]
            assert dropout.aim == (config.seed, 0, rank * own)
        seen[workers] = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    # float sums may be grouped otherwise in smaller batches
    torch.testing.assert_close(seen[1], seen[2])


# augmentation


@pytest.mark.parametrize("size", [(20, 24), (16, 16), (9, 13)])
@pytest.mark.parametrize("px", [8, 16, 21])
def test_augmentation_is_that_of_projectors(size, px):
    batch, pairs = batch_of(height=size[0], width=size[1]), [(1, 2)]
    config = JointConfig()
    images, masks = joint(
        batch["image"],
        batch["mask"],
        px=px,
        config=config,
        generator=rng.generator(3, "augment"),
        flip_pairs=pairs,
    )
    draw = draw_joint(
        4, height=size[0], width=size[1], config=config, generator=rng.generator(3, "augment")
    )
    labels = targets.apply_targets(batch["mask"], batch["soft"], draw, px=px, flip_pairs=pairs)
    assert torch.equal(move_images(batch["image"], draw, px=px), images)
    assert torch.equal(labels.mask, masks)
    # soft labels move as masks do, each class by itself
    for at in range(2):
        moved = joint(
            batch["image"],
            batch["soft"][:, 0, at],
            px=px,
            config=config,
            generator=rng.generator(3, "augment"),
            flip_pairs=pairs,
        )[1]
        assert torch.equal(labels.classes[:, at], moved)
    torch.testing.assert_close(labels.probabilities.sum(1), torch.ones(4, px, px))


def test_flip_pairs_matter_only_where_images_flip():
    always, never = (
        override(BASE, MOVED | {"augment": to_dict(JointConfig(flip_p=p))}) for p in (1.0, 0.0)
    )
    assert trace(always, flip_pairs=[(1, 2)]) != trace(always)
    assert trace(never, flip_pairs=[(1, 2)]) == trace(never)
    soft = override(always, SOFT)
    assert trace(soft, flip_pairs=[(1, 2)]) != trace(soft)


def test_without_augmentation_images_are_only_resized():
    learner, batch = student_of(BASE), batch_of(height=16, width=16)
    images, labels = learner._prepare(batch)
    torch.testing.assert_close(images, normalise(batch["image"]), atol=1e-5, rtol=1e-5)
    assert torch.equal(labels.mask, batch["mask"].long())


def test_refuses_batches():
    learner, batch = student_of(BASE), batch_of()
    with pytest.raises(ValueError, match="expected batch = 4 images in all"):
        learner.step(batch_of(count=3))
    with pytest.raises(ValueError, match="masks of their size"):
        learner.step(batch | {"mask": batch["mask"][:, 1:]})
    with pytest.raises(ValueError, match="the batch has no soft labels"):
        student_of(override(BASE, SOFT)).step({k: batch[k] for k in ("image", "mask")})
    assert learner.steps_taken == 0


# prediction


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


def test_config_survives_json():
    config = override(BASE, MOVED | UNET)
    assert from_dict(StudentConfig, to_dict(config)) == config
