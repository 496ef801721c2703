import pytest
import torch

from raysweep import rng
from raysweep.config import ConfigError, from_dict, override
from raysweep.fewshot.image_distance import pixel_pyramid
from raysweep.fewshot.latent_projection import (
    LatentProjection,
    ProjectionConfig,
    disturbance,
    latent_statistics,
    learning_rate,
    noise_regulariser,
    renormalise,
)
from raysweep.nets import stylegan1, stylegan2
from tests.fewshot.tiny_generator import DIM, ROWS, SIZES, Tiny
from tests.reference import projection as reference

BASE = ProjectionConfig(steps=12, mean_samples=50)


def targets(count=2):
    tiny = Tiny()
    z = torch.randn(count, ROWS, 5, generator=rng.generator(0, "targets"))
    noise = tiny.synthesis.draw_noise(count, generator=rng.generator(1, "targets"), device="cpu")
    with torch.no_grad():
        return tiny.synthesis(tiny.mapping(z), noise)


def search(config, images=None, **options):
    images = targets() if images is None else images
    options = {"generator": Tiny(), "distance": pixel_pyramid, "device": "cpu"} | options
    return LatentProjection(config, targets=images, **options)


def found(config, images=None, **options):
    """Search to the end."""
    whole = search(config, images, **options)
    for _ in range(config.steps):
        whole.step()
    return whole.projection()


def same(a, b):
    return all(
        x.shape == y.shape and torch.equal(x, y)
        for x, y in zip([a.ws, a.losses, *a.noise], [b.ws, b.losses, *b.noise], strict=True)
    )


def assert_normal(noise):
    for level in noise:
        assert float(level.mean((1, 2, 3)).abs().max()) < 1e-5
        torch.testing.assert_close(level.var((1, 2, 3), correction=0), torch.ones(2))


@pytest.mark.parametrize("steps", [1, 7, 1000])
@pytest.mark.parametrize(("up", "down"), [(0.05, 0.25), (0.0, 0.0), (0.5, 1.0), (1.0, 0.5)])
def test_learning_rate_equals_the_reference(steps, up, down):
    config = ProjectionConfig(steps=steps, lr=0.3, ramp_up=up, ramp_down=down)
    for step in range(0, steps, max(steps // 40, 1)):
        expected = reference.learning_rate(step, steps=steps, peak=0.3, ramp_up=up, ramp_down=down)
        assert learning_rate(step, config=config) == pytest.approx(expected)


def test_learning_rate_of_the_defaults():
    steps, config = (0, 25, 50, 750, 875, 999), ProjectionConfig()
    rates = [learning_rate(step, config=config) for step in steps]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.05, 0], abs=1e-5)


@pytest.mark.parametrize("ramp", [0.1, 0.75, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_disturbance_equals_the_reference(steps, ramp):
    config = ProjectionConfig(steps=steps, w_noise=0.3, w_noise_ramp=ramp)
    for step in range(steps):
        expected = reference.disturbance(step, steps=steps, factor=0.3, ramp=ramp)
        assert disturbance(step, config=config) == pytest.approx(expected)
    assert disturbance(0, config=override(config, {"w_noise_ramp": 0.0})) == 0


@pytest.mark.parametrize("sizes", [(4,), (8, 16), (4, 8, 8, 16, 32), (12,)])
def test_regulariser_and_renormalisation_equal_the_loops(sizes):
    generator = rng.generator(0, "noise")
    noise = [
        torch.randn(2, 1, size, size, generator=generator, dtype=torch.float64) + 0.3
        for size in sizes
    ]
    by_image = [[level[image, 0].tolist() for level in noise] for image in range(2)]
    value = noise_regulariser(noise)
    assert value.tolist() == pytest.approx([reference.regulariser(maps) for maps in by_image])
    renormalise(noise)
    for image, maps in enumerate(by_image):
        for level, plane in zip(noise, maps, strict=True):
            expected = torch.tensor(reference.renormalised(plane), dtype=torch.float64)
            torch.testing.assert_close(level[image, 0], expected)


def test_statistics_of_the_latents():
    config = override(BASE, {"mean_samples": 2500})  # more than one chunk
    tiny = Tiny()
    mean, spread = latent_statistics(tiny, config=config, device=torch.device("cpu"))
    z = torch.randn(2500, 5, generator=rng.generator(config.seed, "mean_latent"))
    ws = tiny.mapping(z).detach()
    torch.testing.assert_close(mean, ws.mean(0))
    assert float(spread) == pytest.approx(float(ws.var(0, correction=0).sum().sqrt()), rel=1e-5)


@pytest.mark.parametrize("optimise_noise", [True, False])
@pytest.mark.parametrize("space", ["w", "w+"])
def test_search_equals_adam_spelt_out(space, optimise_noise):
    settings = {"space": space, "optimise_noise": optimise_noise, "steps": 9, "lr": 0.05}
    settings |= {"w_noise": 0.0, "pixel": 0.7, "perceptual": 1.3, "regulariser": 0.5}
    config = override(BASE, settings)
    images, tiny = targets(1).double(), Tiny().double()
    start = search(config, targets(1)).projection()
    ours = search(config, targets(1))
    for _ in range(config.steps):
        ours.step()
    rows = 1 if space == "w" else ROWS

    def loss(_, leaves):
        noise = leaves[1:] if optimise_noise else [level.double() for level in start.noise]
        made = tiny.synthesis(leaves[0].expand(1, ROWS, DIM), noise)
        value = 1.3 * pixel_pyramid(made, images).sum() + 0.7 * (made - images).square().mean()
        return value + (0.5 * noise_regulariser(noise).sum() if optimise_noise else 0)

    def after(leaves):
        renormalise(leaves[1:])
        return leaves

    leaves = [start.ws[:, :rows].double()]
    leaves += [level.double() for level in start.noise] if optimise_noise else []
    rates = [
        reference.learning_rate(step, steps=9, peak=0.05, ramp_up=0.05, ramp_down=0.25)
        for step in range(9)
    ]
    leaves, losses = reference.descend(loss, leaves, rates, after)
    got = ours.projection()
    assert got.losses[:, 0].tolist() == pytest.approx(losses, rel=1e-4)
    close = {"atol": 1e-4, "rtol": 1e-3}
    torch.testing.assert_close(got.ws.double(), leaves[0].expand(1, ROWS, DIM), **close)
    for mine, other in zip(got.noise, leaves[1:] or start.noise, strict=True):
        torch.testing.assert_close(mine.double(), other.double(), **close)


def test_search_starts_at_the_mean_with_unit_noise():
    start = search(BASE).projection()
    mean, _ = latent_statistics(Tiny(), config=BASE, device=torch.device("cpu"))
    torch.testing.assert_close(start.ws, mean.expand(2, ROWS, DIM))
    assert start.losses.shape == (0, 2)
    for level, size in zip(start.noise, SIZES, strict=True):
        assert level.shape == (2, 1, size, size)
    assert_normal(start.noise)
    assert not torch.equal(start.noise[0][0], start.noise[0][1])


def test_latents_are_disturbed_by_a_part_of_their_spread():
    one = search(BASE, targets(1).expand(400, -1, -1, -1))
    one.step()
    moves = one.generator.synthesis.seen[0][:, 0] - search(BASE).projection().ws[0, 0]
    assert float(moves.std()) == pytest.approx(0.05 * float(one.spread), rel=0.05)
    assert float(moves.mean()) == pytest.approx(0, abs=0.1 * float(moves.std()))
    assert float(one.spread) != pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_known_latent_is_found(space):
    tiny = Tiny()
    z = torch.randn(2, 1 if space == "w" else ROWS, 5, generator=rng.generator(3, "known"))
    ws = tiny.mapping(z).detach().expand(2, ROWS, DIM)
    config = override(BASE, {"space": space, "steps": 300, "optimise_noise": False})
    start = search(config).projection()
    images = tiny.synthesis(ws, start.noise).detach()
    end = found(config, images)
    assert end.ws.shape == (2, ROWS, DIM)
    assert bool((end.losses[-1] < 1e-4 * end.losses[0]).all())
    torch.testing.assert_close(end.ws, ws, atol=0.02, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(end.noise, start.noise, strict=True))


def test_rows_of_w_are_equal_and_those_of_w_plus_are_not():
    assert bool((found(BASE).ws == found(BASE).ws[:, :1]).all())
    free = found(override(BASE, {"space": "w+"})).ws
    assert not torch.allclose(free[:, 0], free[:, 1])


def test_optimised_noise_stays_normal_and_tells_less_the_more_it_is_regularised():
    heavy, light = (found(override(BASE, {"regulariser": weight})) for weight in (1e5, 0.0))
    for end in (heavy, light):
        assert_normal(end.noise)
    assert bool((noise_regulariser(heavy.noise) < noise_regulariser(light.noise)).all())
    assert not torch.allclose(heavy.noise[1], search(BASE).projection().noise[1])


def test_images_of_a_batch_do_not_touch_each_other():
    images = targets(3)
    together = found(BASE, images)
    for index in range(3):
        alone = found(BASE, images[index : index + 1], first=index)
        part = slice(index, index + 1)
        torch.testing.assert_close(together.ws[part], alone.ws, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.losses[:, part], alone.losses, atol=1e-4, rtol=1e-3)
        for ours, theirs in zip(together.noise, alone.noise, strict=True):
            torch.testing.assert_close(ours[part], theirs, atol=1e-3, rtol=1e-2)
    other = found(BASE, images[1:2], first=0)  # another image's number: other noise
    assert not torch.allclose(other.noise[0], together.noise[0][1:2], atol=0.1)


def test_the_generator_gets_no_gradient():
    tiny = Tiny()
    found(override(BASE, {"steps": 2}), generator=tiny)
    assert all(parameter.grad is None for parameter in tiny.parameters())


REAL = [
    (stylegan1.Generator, stylegan1.StyleGan1Config),
    (stylegan2.Generator, stylegan2.StyleGan2Config),
]


@pytest.mark.parametrize(("network", "settings"), REAL)
def test_both_stylegans_are_served(network, settings):
    with rng.seeded(0, "generator"):
        generator = network(settings(resolution=16, z_dim=5, w_dim=6, channel_max=4))
        images = generator(torch.randn(2, 5)).detach()
    config = override(BASE, {"space": "w+", "steps": 25})
    end = found(config, images, generator=generator)
    assert end.ws.shape == (2, generator.config.num_ws, 6)
    with torch.no_grad():
        left = pixel_pyramid(generator.synthesis(end.ws, end.noise), images)
    assert bool((left < end.losses[0]).all())


def test_a_search_ends_after_its_steps():
    whole = search(BASE)
    for _ in range(BASE.steps):
        whole.step()
    with pytest.raises(ValueError, match="steps = 12: all taken"):
        whole.step()


def test_a_step_logs_loss_and_learning_rate():
    one = search(BASE)
    logged = [one.step() for _ in range(3)]
    losses = one.projection().losses
    assert losses.shape == (3, 2)
    assert [float(entry["loss"]) for entry in logged] == pytest.approx(losses.mean(1).tolist())
    rates = [learning_rate(step, config=BASE) for step in range(3)]
    assert [float(entry["lr"]) for entry in logged] == pytest.approx(rates)


CHANGES = {
    "space": "w+",
    "steps": 13,
    "lr": 0.05,
    "ramp_up": 0.5,
    "ramp_down": 0.5,
    "optimise_noise": False,
    "regulariser": 10.0,
    "w_noise": 0.1,
    "w_noise_ramp": 0.5,
    "perceptual": 2.0,
    "pixel": 1.0,
    "mean_samples": 60,
    "seed": 1,
}


def test_every_setting_matters():
    elsewhere = {"distance", "weights"}  # read by who makes the distance: test_distances.py
    assert set(CHANGES) | elsewhere == set(ProjectionConfig.model_fields)
    base = found(BASE)
    assert same(base, found(BASE))
    for name, value in CHANGES.items():
        assert not same(base, found(override(BASE, {name: value}))), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "z"}, "'w' or 'w\\+'"),
        ({"steps": 0}, "steps = 0"),
        ({"ramp_up": 1.5}, "ramp_up = 1.5"),
        ({"w_noise": -0.1}, "w_noise = -0.1"),
        ({"mean_samples": 0}, "mean_samples = 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ProjectionConfig, settings)
