import pytest
import torch

from raysweep import rng
from raysweep.evaluate.robustness import IGNORE, shift_curve, shifted
from tests.reference import robustness as reference


def photos(count=2, height=5, width=7, classes=3):
    stream = rng.generator(0, "photos")
    images = torch.randint(0, 256, (count, 3, height, width), generator=stream).byte()
    return images, torch.randint(0, classes, (count, height, width), generator=stream).byte()


@pytest.mark.parametrize("dx", [-6, -1, 0, 2, 6])
@pytest.mark.parametrize("dy", [-4, 0, 1, 4])
def test_moving_equals_the_loops(dx, dy):
    images, masks = photos()
    before = images.clone(), masks.clone()
    found, truth = shifted(images, masks, dx, dy)
    assert found.dtype == truth.dtype == torch.uint8
    for i in range(2):
        for c in range(3):
            plane = images[i, c].tolist()
            assert found[i, c].tolist() == reference.moved(plane, dx, dy, outside=None)
        assert truth[i].tolist() == reference.moved(masks[i].tolist(), dx, dy, outside=IGNORE)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


def test_what_cannot_be_moved_is_refused():
    images, masks = photos()
    for dx, dy in ((7, 0), (0, -5)):
        with pytest.raises(ValueError, match="nothing is left of images of 7 x 5 px"):
            shifted(images, masks, dx, dy)
    with pytest.raises(ValueError, match="masks"):
        shifted(images, masks[:1], 0, 0)


@pytest.mark.parametrize("shifts", [[0], [0, 1, 3], [-2, 0, 2], [4]])
def test_the_curve_equals_the_loops(shifts):
    images, masks = photos()

    def predict(moved):  # depends on place and content
        return (moved.sum(1) + torch.arange(moved.shape[3])) % 3

    def labels(shift):
        return predict(shifted(images, masks, shift, 0)[0]).tolist()

    curve = shift_curve(predict, images, masks, shifts, 3)
    assert [point.shift for point in curve] == shifts
    expected = [
        reference.miou(labels, masks.tolist(), shift, shifts=shifts, num_classes=3)
        for shift in shifts
    ]
    assert [point.miou for point in curve] == pytest.approx(expected)
    assert all(0 < value < 1 for value in expected)


def test_a_model_that_moves_with_the_image_keeps_its_score_and_a_fixed_one_loses():
    _, masks = photos()
    images = masks[:, None].expand(-1, 3, -1, -1)
    follows = shift_curve(lambda moved: moved[:, 0], images, masks, [0, 1, 2], 3)
    assert [point.miou for point in follows] == [1, 1, 1]
    stays = shift_curve(lambda _: masks, images, masks, [0, 1, 2], 3)
    assert stays[0].miou == 1
    assert max(point.miou for point in stays[1:]) < 0.6


def test_classes_out_of_sight_count_as_asked_and_ignored_pixels_do_not():
    masks = torch.zeros(1, 2, 4, dtype=torch.uint8)
    masks[:, :, 3] = 1  # never scored
    masks[:, 0, 0] = IGNORE
    images = torch.zeros(1, 3, 2, 4, dtype=torch.uint8)

    def score(**options):
        curve = shift_curve(lambda moved: moved[:, 0], images, masks, [0, 1], 2, **options)
        return [point.miou for point in curve]

    assert score() == [1, 1]
    assert score(absent="zero") == [0.5, 0.5]


def test_shifts_without_common_content_are_refused():
    images, masks = photos()
    with pytest.raises(ValueError, match="shifts from -3 to 4: no column of 7"):
        shift_curve(lambda moved: moved[:, 0], images, masks, [-3, 4], 3)
