import pytest
import torch

from raysweep import rng
from raysweep.config import override
from raysweep.data import augment
from raysweep.data.joint import (
    JointConfig,
    draw_joint,
    joint,
    move_images,
    move_planes,
    resized,
    resized_labels,
    swap_pairs,
)
from tests.data.test_augment import COUNT, close, photos


def joined(config, flip_pairs=(), px=24):
    images = photos()
    return joint(
        images,
        images[:, 0] % 5,
        px=px,
        config=config,
        generator=rng.generator(0, "j"),
        flip_pairs=flip_pairs,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": [0.1, 0.2]},
        {"ratio": [1.0, 1.0]},
        {"crop_p": 0.0},
        {"jitter": [0.0, 0.0, 0.0, 0.0]},
        {"jitter_p": 0.0},
        {"flip_p": 1.0},
    ],
)
def test_every_joint_setting_matters(change):
    base = JointConfig()
    assert not torch.equal(joined(base)[0], joined(override(base, change))[0])


def test_joint_without_chances_is_resize_and_normalise():
    config = JointConfig(crop_p=0.0, jitter_p=0.0, flip_p=0.0)
    images, masks = photos(height=24, width=24), photos(height=24, width=24)[:, 0]
    x, y = joint(images, masks, px=24, config=config, generator=rng.generator(0))
    close(x, augment.normalise(images))
    assert y.dtype == torch.int64
    assert torch.equal(y, masks.long())


def test_labels_stay_on_their_pixels():
    # the label is the image itself, black or white in large blocks: they must agree after the crop
    blocks = torch.randint(0, 2, (COUNT, 4, 4), generator=rng.generator(0, "blocks"))
    masks = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2).byte()
    images = (255 * masks)[:, None].repeat(1, 3, 1, 1)
    config = JointConfig(jitter_p=0.0, crop_p=1.0)
    x, y = joint(images, masks, px=64, config=config, generator=rng.generator(0))
    white = x[:, 0] > x[:, 0].mean()
    assert (white == (y == 1)).float().mean() > 0.98


def test_left_and_right_swap_only_on_flip():
    masks = torch.full((2, 4, 4), 2, dtype=torch.uint8)
    masks[:, :, :2] = 1
    masks[:, 0] = 255
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)

    def labels(flip_p):
        config = JointConfig(crop_p=0.0, flip_p=flip_p)
        out = joint(
            images, masks, px=4, config=config, generator=rng.generator(0), flip_pairs=[(1, 2)]
        )
        return out[1]

    assert torch.equal(labels(0.0), masks.long())
    assert torch.equal(labels(1.0), masks.long())  # mirrored halves, exchanged names
    assert not torch.equal(joined(JointConfig(), [(1, 2)])[1], joined(JointConfig())[1])


def test_masks_must_match_images():
    with pytest.raises(ValueError, match="expected .* to match images"):
        joint(
            photos(),
            torch.zeros(COUNT, 8, 8, dtype=torch.uint8),
            px=8,
            config=JointConfig(),
            generator=rng.generator(0),
        )


@pytest.mark.parametrize("config", [JointConfig(), None])
def test_workers_apply_their_part_of_what_is_drawn_for_the_batch(config):
    images, masks = photos(), photos()[:, :1] % 5
    size = {"height": images.shape[2], "width": images.shape[3], "config": config}
    draw = draw_joint(COUNT, **size, generator=rng.generator(0, "j"))
    rows = slice(5, 9)
    assert torch.equal(
        move_images(images[rows], draw.part(rows), px=24), move_images(images, draw, px=24)[rows]
    )
    every = swap_pairs(move_planes(masks, draw, px=24), draw, [(1, 2)])
    own = draw.part(rows)
    ours = swap_pairs(move_planes(masks[rows], own, px=24), own, [(1, 2)])
    assert torch.equal(ours, every[rows])


def test_without_augmentation_images_and_labels_are_only_resized():
    images = photos()
    draw = draw_joint(COUNT, height=40, width=52, config=None, generator=rng.generator(0))
    assert torch.equal(resized(images, px=24), move_images(images, draw, px=24))
    labels = resized_labels(images[:, 0], px=24)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, move_planes(images[:, :1], draw, px=24)[:, 0].long())
