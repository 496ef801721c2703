"""Which labelled images a fit takes at each step, and their masks without specks."""

from collections import Counter

import pytest
import torch

from raysweep import rng
from raysweep.config import override
from raysweep.fewshot.inputs import clean_masks
from raysweep.fewshot.projector import fit_batch
from tests.fewshot.projector_cases import BASE


def cleaned(mask, pixels):
    """Loop: a label that few pixels of the image carry becomes 0."""
    area = Counter(label for row in mask for label in row)
    return [[0 if area[label] < pixels else label for label in row] for row in mask]


@pytest.mark.parametrize(("count", "height", "width"), [(1, 1, 1), (3, 4, 7), (2, 12, 12)])
@pytest.mark.parametrize("classes", [1, 4, 256])
@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 30])
def test_clean_masks_equals_the_loops(count, height, width, classes, pixels):
    generator = rng.generator(0, "masks")
    masks = torch.randint(0, classes, (count, height, width), generator=generator).byte()
    before = masks.clone()
    found = clean_masks(masks, pixels)
    assert found.dtype == torch.uint8
    assert found.tolist() == [cleaned(mask, pixels) for mask in masks.tolist()]
    assert torch.equal(masks, before)


def test_clean_masks_counts_each_image_alone_and_keeps_the_limit_itself():
    masks = torch.zeros(2, 5, 8, dtype=torch.uint8)
    masks[0].view(-1)[:30] = 3
    masks[1].view(-1)[:29] = 3
    found = clean_masks(masks, 30)
    assert torch.equal(found[0], masks[0])
    assert found[1].eq(0).all()
    assert clean_masks(masks[:0], 30).shape == (0, 5, 8)


def drawn(config, steps, count):
    """Which images each step takes, read off their first pixel."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    taken = []
    for step in range(steps):
        batch = fit_batch(images, images[:, 0] + 100, step=step, config=config)
        assert torch.equal(batch["mask"], batch["input"][:, 0] + 100)
        taken.append(batch["input"][:, 0, 0, 0].tolist())
    return taken


def test_without_shuffling_images_come_in_order_and_start_again():
    config = override(BASE, {"shuffle": False})
    assert drawn(config, 4, count=5) == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert drawn(config, 2, count=1) == [[0, 0], [0, 0]]
    assert drawn(override(config, {"seed": 1}), 4, count=5) == drawn(config, 4, count=5)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_shuffling_takes_every_image_once_per_epoch(batch):
    config = override(BASE, {"batch": batch})
    flat = [at for part in drawn(config, 6 * 10 // batch, count=6) for at in part]
    epochs = [flat[start : start + 6] for start in range(0, len(flat) - 5, 6)]
    assert len(epochs) >= 9
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert drawn(override(config, {"seed": 1}), 10, count=6) != drawn(config, 10, count=6)
