import pytest
import torch
from torch import nn

from raysweep.config import override
from raysweep.data.joint import JointConfig
from tests.fewshot.matching_cases import BASE, DEEPLAB, advance, learner, same


def frozen_norms(own):
    """Normalise by the running statistics: those of a batch depend on how it is cut."""
    for network in (own.annotator, own.segmentor):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True, module=module: nn.Module.train(module, False)
    return own


def two_worker_trace(config, steps):
    own = frozen_norms(learner(config))
    rows = [{k: v.item() for k, v in row.items()} for row in advance(own, steps)]
    return rows, own.state_dict()


SHARED = {"labelled_batch": 4, "generated_batch": 4, "segmentor_interval": 2}
TWO_WORKERS = [
    (BASE, {"block": "all", "augment": JointConfig().model_dump(mode="json")}),
    (BASE, {"block": "output"}),
    (BASE, {"objective": "maml", "maml.inner_steps": 2, "maml.inner_lr": 0.5, "block": "all"}),
    (DEEPLAB, {"generated_batch": 8}),
    (DEEPLAB, {"generated_batch": 8, "objective": "maml"}),
    (BASE, {"objective": "pseudo_labels", "pretrain_steps": 2}),
    (BASE, {"objective": "inversion"}),
]


@pytest.mark.dist
@pytest.mark.parametrize(("start", "changes"), TWO_WORKERS)
def test_two_workers_equal_one_with_the_whole_batch(dist_pool, start, changes):
    config = override(start, SHARED | changes)
    alone, state = two_worker_trace(config, 3)
    answers = dist_pool.run(two_worker_trace, config, 3)
    for rows, _ in answers:
        for ours, theirs in zip(rows, alone, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-4)
    for name in ("annotator", "segmentor"):
        for key, value in state[name].items():
            torch.testing.assert_close(answers[0][1][name][key], value, atol=1e-4, rtol=1e-3)
    assert same(answers[0][1], answers[1][1])


def two_worker_statistics(config):
    own = learner(config)
    advance(own, 2)
    return own.state_dict()


@pytest.mark.dist
def test_workers_have_the_same_statistics(dist_pool):
    config = override(BASE, SHARED)
    first, second = dist_pool.run(two_worker_statistics, config)
    assert same(first, second)
    means = [value for key, value in first["annotator"].items() if key.endswith("running_mean")]
    assert all(value.abs().max() > 0 for value in means)
