"""What a student's step makes of a batch: augmented images and labels, each worker's share."""

import pytest
import torch

from raysweep import collective, rng
from raysweep.config import override, to_dict
from raysweep.data.augment import normalise
from raysweep.data.joint import JointConfig, draw_joint, joint, move_images
from raysweep.distill import targets
from tests.distill.student_cases import BASE, MOVED, SOFT, batch_of, student_of, trace


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
