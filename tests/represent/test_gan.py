import copy

import pytest
import torch

from raysweep.config import override
from raysweep.represent import gan as module
from raysweep.represent.gan import Gan
from tests.reference import gan as reference
from tests.represent.gan_cases import APART, AUGMENTED, BASE, advance, images, same


@pytest.mark.parametrize(
    ("changes", "path_steps", "r1_steps"),
    [
        ({}, [0, 4, 8, 12, 16], [0, 16]),
        ({"gan.path_interval": 3, "gan.r1_interval": 5}, [0, 3, 6, 9, 12, 15], [0, 5, 10, 15]),
        ({"gan.path_weight": 0.0}, [], [0, 16]),
        ({"gan.r1_gamma": 0.0}, [0, 4, 8, 12, 16], []),
    ],
)
def test_phases_run_when_they_are_due(changes, path_steps, r1_steps):
    learner = Gan(override(BASE, changes), device="cpu")
    rows = advance(learner, 17)
    always = {"loss/generator", "loss/discriminator", "sign", "p"}
    for step, row in enumerate(rows):
        due = {"loss/path"} if step in path_steps else set()
        due |= {"loss/r1"} if step in r1_steps else set()
        assert row.keys() == always | due, step
        assert all(value.ndim == 0 and not value.requires_grad for value in row.values())
    assert learner.kimg == 17 * 8 / 1000


@pytest.mark.parametrize(
    ("changes", "generator", "discriminator"),
    [
        ({}, 4, 16),
        ({"gan.path_interval": 1, "gan.r1_interval": 1}, 1, 1),
        ({"gan.path_weight": 0.0, "gan.r1_interval": 3}, None, 3),
        ({"gan.r1_gamma": 0.0, "gan.path_interval": 2}, 2, None),
    ],
)
def test_adam_knows_of_the_regularisation_steps(changes, generator, discriminator):
    learner = Gan(override(BASE, {"gan.lr": 0.01} | changes), device="cpu")
    for network, interval in (
        (learner.generator, generator),
        (learner.discriminator, discriminator),
    ):
        lr, betas = reference.lazy_settings(0.01, (0.0, 0.99), interval=interval)
        (group,) = learner.optimizers[network].param_groups
        assert group["lr"] == pytest.approx(lr)
        assert group["betas"] == pytest.approx(betas)
        assert group["eps"] == 1e-8
        ours = {id(parameter) for parameter in group["params"]}
        assert ours == {id(parameter) for parameter in network.parameters()}


@pytest.mark.parametrize("interval", [None, 1, 2, 4])
def test_lazy_adam_takes_the_steps_of_the_definition(interval):
    point = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(point.weight, 2.0)
    slopes = []
    for step in range(5):  # of (x - 1)^2, and of x^4 / 2 times the factor of lazy regularisation
        slopes.append(lambda x: 2 * (x - 1))
        if interval is not None and step % interval == 0:
            slopes.append(lambda x: interval * 2 * x**3)
    lr, betas = reference.lazy_settings(0.1, (0.0, 0.99), interval=interval)
    optimizer = module._lazy_adam(point, lr=0.1, interval=interval)
    for slope, value in zip(slopes, reference.adam(2.0, slopes, lr=lr, betas=betas), strict=True):
        point.weight.grad = slope(point.weight.detach())
        optimizer.step()
        assert point.weight.item() == pytest.approx(value, rel=1e-6)


def spied(learner, monkeypatch):
    """Record both networks in float64 as each phase meets them, its latents and direction."""
    seen = {}
    update, latents, lengths = learner.update, learner._latents, module.losses.path_lengths

    def spy_update(phase, batch):
        seen[phase.name] = [copy.deepcopy(learner.generator).double()]
        seen[phase.name] += [copy.deepcopy(learner.discriminator).double()]
        return update(phase, batch)

    def spy_latents(phase, count):
        ws, noise = latents(phase, count)
        seen[phase] += [ws.detach().double(), [each.double() for each in noise]]
        return ws, noise

    def spy_lengths(images, ws, noise):
        seen["direction"] = noise.double()
        return lengths(images, ws, noise)

    monkeypatch.setattr(learner, "update", spy_update)
    monkeypatch.setattr(learner, "_latents", spy_latents)
    monkeypatch.setattr(module.losses, "path_lengths", spy_lengths)
    return seen


@torch.no_grad()
def test_losses_of_the_first_step_equal_the_reference(monkeypatch):
    changes = {"gan.batch": 4, "gan.r1_gamma": 3.0, "gan.path_decay": 0.3, "gan.path_weight": 1.5}
    learner = Gan(override(BASE, APART | changes), device="cpu")
    seen, photos = spied(learner, monkeypatch), images(4)
    with torch.enable_grad():
        row = {name: float(value) for name, value in learner.step({"image": photos}).items()}
    real = photos.double() / 127.5 - 1

    g, d, ws, noise = seen["generator"]
    expected = reference.generator_loss(d(g.synthesis(ws, noise)).flatten().tolist())
    assert row["loss/generator"] == pytest.approx(expected, rel=1e-4)

    g, d, ws, noise = seen["discriminator"]
    fake, answers = d(g.synthesis(ws, noise)), d(real)
    expected = reference.discriminator_loss(fake.flatten().tolist(), answers.flatten().tolist())
    assert row["loss/discriminator"] == pytest.approx(expected, rel=1e-4)
    assert row["sign"] == sum(1 if x > 0 else -1 for x in answers.flatten().tolist()) / 4

    lengths = path_lengths(*seen["path"], seen["direction"])
    assert len(lengths) == 4 // learner.gan.path_shrink
    penalty, mean = reference.path_penalty(lengths, mean=0.0, decay=0.3)
    assert row["loss/path"] == pytest.approx(1.5 * penalty, rel=1e-3)
    assert learner.path_mean.item() == pytest.approx(mean, rel=1e-3)

    norms = [reference.r1(slopes_of(seen["r1"][1], image)) for image in real]
    assert row["loss/r1"] == pytest.approx(3.0 / 2 * sum(norms) / 4, rel=1e-3)


def path_lengths(g, _, ws, noise, direction):
    lengths, side = [], direction.shape[-1]
    for index, rows in enumerate(ws):
        maps = [each[index : index + 1] for each in noise]

        def along(values, rows=rows, maps=maps, y=direction[index]):
            moved = torch.tensor(values, dtype=torch.float64).view(1, *rows.shape)
            return float((g.synthesis(moved, maps)[0] * y).sum()) / side

        slopes = torch.tensor(reference.gradient(along, rows.flatten().tolist()))
        lengths.append(reference.path_length(slopes.view(rows.shape).tolist()))
    return lengths


def slopes_of(d, image):
    """Central differences with respect to every pixel at once; images do not affect each other."""
    steps = reference.STEP * torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape)
    return ((d(image + steps) - d(image - steps))[:, 0] / (2 * reference.STEP)).tolist()


@pytest.mark.parametrize(("mixing", "found"), [(0.0, {6}), (1.0, {1, 2, 3, 4, 5})])
def test_rows_are_mixed_from_two_codes(mixing, found, monkeypatch):
    learner, codes = Gan(override(BASE, {"gan.mixing": mixing}), device="cpu"), []
    learner.generator.mapping.register_forward_hook(lambda *call: codes.append(call[2].detach()))
    ws, _ = learner._latents("generator", 200)
    first, second = codes
    crossover = [
        next((row for row in range(6) if not torch.equal(rows[row], own)), 6)
        for rows, own in zip(ws, first, strict=True)
    ]
    assert set(crossover) == found
    expected = reference.mixed(first.tolist(), second.tolist(), crossover, rows=6)
    assert ws.tolist() == expected
    # only the first code counts for the running mean, which starts at 0
    torch.testing.assert_close(learner.generator.mapping.w_avg, 0.005 * first.mean(0))


def test_share_of_mixed_images_follows_the_setting():
    learner = Gan(override(BASE, {"gan.mixing": 0.3}), device="cpu")
    ws, noise = learner._latents("generator", 1000)
    is_mixed = (ws[:, 0] != ws[:, -1]).any(1).float().mean().item()
    assert is_mixed == pytest.approx(0.3, abs=0.05)
    assert torch.stack([each.std() for each in noise]).tolist() == pytest.approx([1] * 5, abs=0.05)


@pytest.mark.parametrize("rampup", [None, 0.5, 100.0])
def test_averaged_generator_follows(rampup):
    changes = {"gan.ema_rampup": rampup, "gan.ema_kimg": 0.02, "gan.path_weight": 0.0}
    learner = Gan(override(BASE, changes), device="cpu")
    ours, theirs = learner.average.synthesis.b4.const, learner.generator.synthesis.b4.const
    start, values, averages = ours[0, 0, 0].item(), [], []
    for step in range(7):
        learner.step({"image": images(seed=step)})
        values.append(theirs[0, 0, 0].item())
        averages.append(ours[0, 0, 0].item())
    expected = reference.moving_average(values, start=start, batch=8, half_life=20.0, rampup=rampup)
    assert averages == pytest.approx(expected, rel=1e-5)
    assert averages != pytest.approx(values, rel=1e-5)
    assert learner.generator.mapping.w_avg.abs().sum() > 0
    pairs = zip(learner.average.buffers(), learner.generator.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(p.requires_grad for p in learner.average.parameters())


def test_each_phase_changes_its_own_network_only(monkeypatch):
    learner, phases = Gan(AUGMENTED, device="cpu"), []
    update = learner.update

    def held(network):
        return [
            (p.detach().clone(), None if p.grad is None else p.grad.clone())
            for p in network.parameters()
        ]

    def spy(phase, batch):
        own = phase.network
        other = learner.discriminator if own is learner.generator else learner.generator
        before, values = held(other), held(own)
        metrics = update(phase, batch)
        assert same([list(each) for each in held(other)], [list(each) for each in before])
        assert not same([value for value, _ in held(own)], [value for value, _ in values])
        phases.append(phase.name)
        return metrics

    monkeypatch.setattr(learner, "update", spy)
    advance(learner, 2)
    assert phases == ["generator", "path", "discriminator", "r1", "generator", "discriminator"]


def test_gradients_of_a_phase_are_those_of_its_loss_times_its_interval(monkeypatch):
    learner, wanted, phases = Gan(BASE, device="cpu"), [], []
    average = module._average_gradients

    def recording(phase):
        def loss(batch):
            (value, metrics), own = phase.loss(batch), list(phase.network.parameters())
            found = torch.autograd.grad(value, own, retain_graph=True, allow_unused=True)
            wanted[:] = [None if each is None else phase.interval * each for each in found]
            phases.append(phase.name)
            return value, metrics

        return phase._replace(loss=loss)

    def check(parameters):
        pairs = list(zip(parameters, wanted, strict=True))
        assert [p.grad is None for p, _ in pairs] == [each is None for _, each in pairs]
        for parameter, each in pairs:
            if each is not None:
                torch.testing.assert_close(parameter.grad, each, rtol=1e-4, atol=1e-6)
        average(parameter for parameter, _ in pairs)

    learner.phases = [recording(phase) for phase in learner.phases]
    monkeypatch.setattr(module, "_average_gradients", check)
    advance(learner, 5)
    assert (phases.count("path"), phases.count("r1"), len(phases)) == (2, 1, 13)


def test_gradients_that_are_not_finite_are_cut_off():
    values = [torch.nan, torch.inf, -torch.inf, 2.0]
    parameter, unused = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    parameter.grad = torch.tensor(values)
    module._average_gradients([parameter, unused])
    assert parameter.grad.tolist() == [0.0, 1e5, -1e5, 2.0]
    assert unused.grad is None


def test_no_stream_of_random_numbers_is_used_twice(monkeypatch):
    learner, names, draw = Gan(AUGMENTED, device="cpu"), [], module.rng.generator
    photos = images()

    def recording(*name):
        names.append(name)
        return draw(*name)

    monkeypatch.setattr(module.rng, "generator", recording)
    learner.step({"image": photos})
    assert len(set(names)) == len(names)
    # latents of three phases, direction of the path, augmentation of each judgement
    assert len(names) == 3 + 1 + 4
