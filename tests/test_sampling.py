import pytest
import torch

from raysweep.data.sampling import batch_indices


def stream(steps, *, count, batch, seed=0):
    parts = [batch_indices(t, count=count, batch=batch, seed=seed) for t in range(steps)]
    return torch.cat(parts).tolist()


@pytest.mark.parametrize(("count", "batch"), [(1, 1), (1, 4), (5, 2), (7, 7), (6, 3), (3, 8)])
def test_every_image_comes_once_per_epoch(count, batch):
    epochs = 4
    indices = stream(-(-epochs * count // batch), count=count, batch=batch)
    for epoch in range(epochs):
        seen = indices[epoch * count : (epoch + 1) * count]
        assert sorted(seen) == list(range(count))


def test_epochs_have_different_orders():
    indices = stream(2, count=50, batch=50)
    assert indices[:50] != indices[50:]


def test_a_step_needs_no_history():
    whole = stream(6, count=7, batch=3)
    assert batch_indices(5, count=7, batch=3, seed=0).tolist() == whole[15:18]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_the_global_batch(workers):
    settings = {"count": 11, "batch": 8, "seed": 3}
    for step in range(5):
        shares = [
            batch_indices(step, rank=rank, workers=workers, **settings) for rank in range(workers)
        ]
        assert torch.equal(torch.cat(shares), batch_indices(step, **settings))


def test_seed_changes_the_order():
    assert stream(2, count=20, batch=10, seed=0) != stream(2, count=20, batch=10, seed=1)


def test_indices_are_int64():
    assert batch_indices(0, count=4, batch=2, seed=0).dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"count": 0}, "empty set"), ({"workers": 3}, "batch = 4: must be divisible .* 3")],
)
def test_what_cannot_be_shared_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batch_indices(0, **({"count": 5, "batch": 4, "seed": 0} | changes))
