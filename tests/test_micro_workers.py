"""A step in parts on one worker is the step of as many workers that share the batch."""

from collections import Counter

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from raysweep import collective
from raysweep.config import override
from tests.dist_pool import DistPool
from tests.micro_cases import (
    CONTRASTIVE,
    GAN,
    STUDENT,
    assert_alike,
    float64,
    leaves,
    trained,
)

BATCH_NORM = {
    "student": override(STUDENT, {"batch": 16}),
    "moco": override(CONTRASTIVE, {"method": "moco", "batch": 16, "bn_groups": 1}),
    "simsiam": override(CONTRASTIVE, {"method": "simsiam", "batch": 16, "bn_groups": 1}),
    "stylegan2": override(GAN, {"gan.batch": 16, "gan.network.mbstd_group": 4}),
}
OWN = ("running_", "num_batches", "std")  # of a worker's own images


@pytest.fixture(scope="module")
def workers():
    pool = DistPool()
    yield pool
    pool.close()


def counting(calls, network):
    wrapped = DistributedDataParallel(network)

    def hook(group, bucket):
        calls["all-reduce"] += 1
        return allreduce_hook(group, bucket)

    wrapped.register_comm_hook(None, hook)
    return wrapped


def worker_trace(config, parts):
    calls = Counter()
    learner, rows = trained(config, parts, wrap=lambda network: counting(calls, network))
    with float64():
        rows = [
            {name: collective.mean(torch.tensor(value)).item() for name, value in row.items()}
            for row in rows
        ]
    return rows, to_plain(learner.state_dict()), calls["all-reduce"]


def to_plain(state):
    return {name: leaf.clone() for name, leaf in leaves(state).items()}


@pytest.mark.dist
@pytest.mark.parametrize("name", BATCH_NORM)
def test_parts_equal_workers_that_share_the_batch(name, workers):
    config, spoken = BATCH_NORM[name], []
    for parts in (1, 2):
        learner, alone = trained(config, 2 * parts)
        for rows, state, calls in workers.run(worker_trace, config, parts):
            for ours, theirs in zip(rows, alone, strict=True):
                theirs = {key: value for key, value in theirs.items() if key not in OWN}
                assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-6)
            assert_alike(state, to_plain(learner.state_dict()), without=OWN)
            spoken.append(calls)
    assert len(set(spoken)) == 1  # parts communicate no more often than one piece
    assert spoken[0] > 0 or config is BATCH_NORM["stylegan2"]
    whole, _ = trained(config, 1)
    with pytest.raises(AssertionError):  # statistics of the whole batch are others
        assert_alike(learner.state_dict(), whole.state_dict(), without=OWN)
