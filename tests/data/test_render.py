from __future__ import annotations

import colorsys

import numpy as np
import pytest

from raysweep import rng
from raysweep.config import override
from raysweep.data.labels import LABEL_SETS, MERGES, merge
from raysweep.data.render import DOMAINS, EASY, HARD, render
from raysweep.data.render.canvas import Canvas, rgb
from raysweep.data.render.draws import Draws
from raysweep.data.render.shapes import box, capsule, ellipse, polygon
from tests.reference.shapes import to_box, to_ellipse, to_segment

FINE = {"face": LABEL_SETS["face17"], "car": LABEL_SETS["car16"]}
# classes that every image shows somewhere, and those that only some do
RARE = {"hat": 0.05, "plate": 0.2, "glasses": 0.15, "mouth": 0.3}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("px", [1, 33, 64])
def test_an_image_does_not_depend_on_the_others(domain, px):
    images, masks = render(domain, range(40), px=px, difficulty=HARD)
    for indices in ([7], [39, 0, 7, 7], range(5, 25)):
        some_images, some_masks = render(domain, indices, px=px, difficulty=HARD)
        np.testing.assert_array_equal(some_images, images[list(indices)])
        np.testing.assert_array_equal(some_masks, masks[list(indices)])


@pytest.mark.parametrize("domain", DOMAINS)
def test_shapes_and_types(domain):
    images, masks = render(domain, [3, 1], px=17)
    assert (images.shape, images.dtype) == ((2, 17, 17, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((2, 17, 17), np.uint8)
    images, masks = render(domain, [], px=17)
    assert (images.shape, masks.shape) == ((0, 17, 17, 3), (0, 17, 17))


def test_seeds_and_indices_give_different_scenes():
    def masks_of(index: int, *, seed: int) -> np.ndarray:
        return render("face", [index], px=32, seed=seed)[1]

    assert not np.array_equal(masks_of(0, seed=0), masks_of(1, seed=0))
    assert not np.array_equal(masks_of(0, seed=0), masks_of(0, seed=1))


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_occurs(domain):
    _, masks = render(domain, range(300), px=64)
    for label, name in enumerate(FINE[domain].classes):
        share_of_images = (masks == label).any(axis=(1, 2)).mean()
        assert share_of_images > RARE.get(name, 0.6), name
    assert masks.max() == len(FINE[domain].classes) - 1
    assert 0.3 < (masks == 0).mean() < 0.85


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_same_scene_appears_at_any_resolution(domain):
    fine_images, fine_masks = render(domain, range(32), px=128)
    images, masks = render(domain, range(32), px=64)
    averaged = fine_images.reshape(32, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    difference = np.abs(averaged - images).mean(axis=(1, 2, 3))  # in levels of 0 to 255
    assert difference.max() < 8
    agree = (fine_masks[:, ::2, ::2] == masks).mean(axis=(1, 2))
    assert agree.min() > 0.9


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("distractors", 0),
        ("occlusion", 1.0),
        ("natural_skin", 0.0),
        ("pose_range", 1.0),
        ("background_strength", 1.0),
        ("background_waves", 7.0),
    ],
)
def test_every_difficulty_field_matters(domain, field, value):
    images, _ = render(domain, range(8), px=32)
    changed, _ = render(domain, range(8), px=32, difficulty=override(EASY, {field: value}))
    only_faces = field == "natural_skin"
    assert np.array_equal(images, changed) == (only_faces and domain == "car")


def test_distractors_lie_behind_and_occluders_in_front():
    plain = override(EASY, {"distractors": 0, "occlusion": 0.0})
    _, masks = render("face", range(16), px=32, difficulty=plain)
    _, cluttered = render("face", range(16), px=32, difficulty=override(plain, {"distractors": 9}))
    _, occluded = render("face", range(16), px=32, difficulty=override(plain, {"occlusion": 1.0}))
    np.testing.assert_array_equal(cluttered, masks)
    hidden = occluded != masks
    assert hidden.any()
    assert (occluded[hidden] == 0).all()


def test_without_pose_range_heads_stay_in_place():
    still = override(EASY, {"pose_range": 0.0, "occlusion": 0.0})

    def spread(difficulty) -> float:
        _, masks = render("face", range(48), px=32, difficulty=difficulty)
        noses = masks == FINE["face"].classes.index("nose")
        columns = (noses * np.arange(32)).sum(axis=(1, 2)) / noses.sum(axis=(1, 2))
        return float(columns.std())

    assert spread(still) < 0.5 * spread(override(still, {"pose_range": 1.0}))


def test_the_left_eye_is_on_the_left():
    _, masks = render("face", range(32), px=64)
    columns = np.arange(64)
    for left, right in FINE["face"].flip_pairs:
        shown = (masks == left).any(axis=(1, 2)) & (masks == right).any(axis=(1, 2))
        means = [
            ((masks[shown] == side) * columns).sum(axis=(1, 2))
            / (masks[shown] == side).sum(axis=(1, 2))
            for side in (left, right)
        ]
        assert (means[0] < means[1]).all()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("difficulty", [EASY, HARD], ids=["easy", "hard"])
def test_colour_alone_does_not_give_the_parts(domain, difficulty):
    images, masks = render(domain, range(128), px=32, difficulty=difficulty)
    if domain == "face":
        masks = merge(masks, MERGES["face17_to_face12"])
    num_classes = int(masks.max()) + 1
    level = (images >> 5).astype(np.int64)  # 8 levels per channel
    colours = level[..., 0] * 64 + level[..., 1] * 8 + level[..., 2]
    votes = np.zeros((512, num_classes))
    np.add.at(votes, (colours[:64].ravel(), masks[:64].ravel()), 1)
    for balance in (0.0, 0.5):  # majority, and one that favours rare classes
        likeliest = (votes / votes.sum(axis=0) ** balance).argmax(axis=1)
        assert 0.03 < _miou(likeliest[colours[64:]], masks[64:], num_classes) < 0.1


def _miou(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    scores = []
    for label in range(num_classes):
        either = ((predicted == label) | (truth == label)).sum()
        both = ((predicted == label) & (truth == label)).sum()
        scores.append(both / max(int(either), 1))
    return float(np.mean(scores))


def test_unusable_arguments_are_explained():
    with pytest.raises(ValueError, match="domain = 'cat'; built in are face, car"):
        render("cat", [0], px=32)
    with pytest.raises(ValueError, match="px = 0"):
        render("face", [0], px=0)


GRID = [(x / 4, y / 4) for x in range(-5, 6, 2) for y in range(-5, 6, 2)]


def _points() -> tuple[np.ndarray, np.ndarray]:
    x, y = np.array(GRID, dtype=np.float32).T
    return x, y


@pytest.mark.parametrize("half", [(0.5, 0.2), (0.05, 1.0)])
def test_box_is_the_distance_to_its_outline(half):
    expected = [to_box(point, centre=(0.1, -0.3), half=half) for point in GRID]
    np.testing.assert_allclose(box(_points(), centre=(0.1, -0.3), half=half), expected, atol=1e-3)


def test_rounding_a_box_only_cuts_its_corners():
    edge, corner = (np.float32(0.5), np.float32(0.0)), (np.float32(0.5), np.float32(0.2))
    size = {"centre": (0, 0), "half": (0.5, 0.2)}
    assert box(edge, **size, corner=0.1) == pytest.approx(0, abs=1e-6)
    expected = 0.1 * (np.sqrt(2) - 1)
    assert box(corner, **size, corner=0.1) == pytest.approx(expected, abs=1e-6)


def test_capsule_is_the_distance_to_its_axis_less_the_radius():
    start, end = (-0.4, 0.2), (0.5, 0.1)
    expected = [to_segment(point, start, end) - 0.15 for point in GRID]
    distance = capsule(_points(), start=start, end=end, radius=0.15)
    np.testing.assert_allclose(distance, expected, atol=1e-3)


@pytest.mark.parametrize("radii", [(0.5, 0.5), (0.7, 0.3)])
def test_ellipse_is_exact_to_first_order_at_its_edge(radii):
    angles = np.linspace(0, 2 * np.pi, 25)
    for offset in (-0.01, 0.01):
        x, y = (1 + offset) * radii[0] * np.cos(angles), (1 + offset) * radii[1] * np.sin(angles)
        found = ellipse((x + 0.1, y), centre=(0.1, 0.0), radii=radii)
        points = zip(x + 0.1, y, strict=True)
        expected = [to_ellipse(point, centre=(0.1, 0.0), radii=radii) for point in points]
        np.testing.assert_allclose(found, expected, rtol=0.05)


def test_polygon_holds_what_lies_inside_all_edges():
    corners = [(-0.5, 0.4), (-0.2, -0.4), (0.3, -0.4), (0.6, 0.4)]
    inside = polygon(_points(), corners=corners) < 0
    expected = [
        abs(y) < 0.4 and x - 0.375 * (0.4 - y) > -0.5 and x + 0.375 * (0.4 - y) < 0.6
        for x, y in GRID
    ]
    np.testing.assert_array_equal(inside, expected)
    below = (np.float32(0.0), np.float32(0.7))
    assert polygon(below, corners=corners) == pytest.approx(0.3, abs=1e-6)


def test_draws_hash_image_and_name():
    keys = [rng.derive(0, "image", index) for index in range(4)]
    found = Draws(keys).uniform("size", 2.0, 3.0).ravel()
    expected = [2 + _splitmix(key ^ rng.derive(0, "size")) for key in keys]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _splitmix(bits: int) -> float:
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return ((bits ^ (bits >> 31)) >> 40) / 2**24


def test_draws_are_uniform_and_unrelated():
    draws = Draws([rng.derive(0, index) for index in range(20_000)])
    first, second = draws.uniform("a", 0, 1).ravel(), draws.uniform("b", 0, 1).ravel()
    assert np.histogram(first, bins=10, range=(0, 1))[0].min() > 1800
    assert 0 <= first.min() < first.max() < 1
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert draws.chance("c", 0.3).mean() == pytest.approx(0.3, abs=0.02)


def test_colours_are_hsv():
    draws = Draws([rng.derive(0, index) for index in range(16)])
    found = draws.colour("paint", hue=(-0.2, 1), saturation=(0.1, 0.9), value=(0.2, 1))
    parts = zip(
        draws.uniform("paint: hue", -0.2, 1).ravel(),
        draws.uniform("paint: saturation", 0.1, 0.9).ravel(),
        draws.uniform("paint: value", 0.2, 1).ravel(),
        strict=True,
    )
    expected = [colorsys.hsv_to_rgb(float(h % 1), float(s), float(v)) for h, s, v in parts]
    np.testing.assert_allclose(found[:, :, 0, 0], expected, atol=1e-6)


def test_paint_covers_pixels_by_area_and_labels_beyond_one_half():
    canvas = Canvas(1, px=4)
    x, y = canvas.points
    # pixels are 0.5 wide; the edge leaves 3/4 of the pixel at -0.25 inside
    canvas.paint(x + 0.125 + 0 * y, rgb(1.0, 0.5, 0.0), label=3)
    np.testing.assert_allclose(canvas.image[0, 0, 0], [1, 0.75, 0, 0], atol=1e-6)
    np.testing.assert_allclose(canvas.image[0, 1, 2], [0.5, 0.375, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(canvas.mask[0], [[3, 3, 0, 0]] * 4)
    canvas.paint(x + 0 * y - 1, rgb(0.0, 0.0, 1.0), where=np.full((1, 1, 1), 0.5, np.float32))
    np.testing.assert_allclose(canvas.image[0, 2], 0.5, atol=1e-6)
    np.testing.assert_array_equal(canvas.mask[0], [[3, 3, 0, 0]] * 4)
