"""How many processes train together: the flag, what shares a batch, and what can be had."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysweep.config import ConfigError, from_dict, override, to_dict
from raysweep.experiment import Experiment
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.on_ray.elastic import (
    Workers,
    parse_workers,
    pretrain_counts,
    student_counts,
)
from raysweep.orchestration.planning.plan import make_plan
from raysweep.orchestration.sweeps.prepared import trainings
from raysweep.presets import smoke
from search_spaces import matching

ROOT = Path(__file__).parents[2]
SECONDS = 300


@pytest.mark.parametrize(("text", "least", "most"), [("1", 1, 1), ("2-8", 2, 8), ("4-4", 4, 4)])
def test_the_flag_is_a_number_or_a_range(text, least, most):
    assert parse_workers(text) == Workers(least, most)


@pytest.mark.parametrize("text", ["0", "-2", "2-", "8-2", "0-2", "two", "1-2-3", "1.5", ""])
def test_other_values_are_refused(text):
    with pytest.raises(ArgumentTypeError, match="nor a range such as 2-8"):
        parse_workers(text)


def pretrain(**changes):
    return override(smoke().pretrain, {"batch": 16, "moco.queue": 32, "bn_groups": 1} | changes)


SHARED = [
    (pretrain(), "1-16", (1, 2, 4, 8)),
    (pretrain(), "3-7", (4,)),
    (pretrain(bn_groups=4), "1-16", (1, 2)),
    (pretrain(batch=12, **{"moco.queue": 36}), "2-6", (2, 3, 4, 6)),
    (pretrain(**{"method": "stylegan2", "gan.batch": 16}), "2-16", (2, 4, 8)),
]


@pytest.mark.parametrize(("config", "text", "counts"), SHARED)
def test_only_numbers_that_share_every_batch_evenly_train(config, text, counts):
    assert pretrain_counts(config, parse_workers(text)) == counts


def test_a_deeplab_student_has_two_images_on_each_worker():
    student = override(smoke().student, {"batch": 8, "network": "deeplab_thin"})
    assert student_counts(student, Workers(1, 8)) == (1, 2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "^--workers 3: must divide pretrain.batch = 16"),
        ("16", "^--workers 16: each worker's 1 images of pretrain.batch cannot be split"),
        ("5-7", "^--workers 5-7: none of these numbers .* must divide .* take a wider range"),
    ],
)
def test_numbers_that_cannot_share_a_batch_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        pretrain_counts(pretrain(), parse_workers(text))


@pytest.mark.parametrize(
    ("resources", "workers", "fitting"),
    [({"CPU": 3.0}, "1-8", 3), ({"CPU": 9.0}, "1-8", 8), ({"CPU": 64.0, "GPU": 2.0}, "1-8", 2)],
)
def test_teachers_are_as_many_as_have_a_core_or_a_gpu(resources, workers, fitting, monkeypatch):
    from raysweep.orchestration.on_ray.train import as_many_as_fit

    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    assert as_many_as_fit(parse_workers(workers)) == fitting


def test_fewer_cores_than_the_fewest_teachers_are_refused(monkeypatch):
    from raysweep.orchestration.on_ray.train import as_many_as_fit, has_gpus_for

    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
    with pytest.raises(ConfigError, match="--workers 2: the cluster has 1 cores"):
        has_gpus_for(as_many_as_fit(parse_workers("2-4")))


class Postbox:
    """Stands in for the actor."""

    def __init__(self):
        self.warn, self.heard = self, []

    def remote(self, text):
        self.heard.append(text)


@pytest.fixture
def policy(monkeypatch):
    """A policy, and what it sees: one core on each of ``alive``, some of them ``going``."""
    from ray.train.v2.api.config import ScalingConfig

    from raysweep.orchestration.on_ray import scaling_policy

    seen = SimpleNamespace(alive=set("abcde"), going=set())

    def nodes():
        return [{"NodeID": name, "Alive": name in seen.alive} for name in "abcdefgh"]

    monkeypatch.setattr("ray.nodes", nodes)
    monkeypatch.setattr(
        scaling_policy.ray_state, "get_draining_nodes", lambda: dict.fromkeys(seen.going)
    )
    found = scaling_policy._Policy(ScalingConfig(num_workers=(2, 8)), (2, 4, 8), Postbox())
    monkeypatch.setattr(found, "_maybe_send_resource_request", lambda: None)
    reserved = {name: {"CPU": 1.0} for name in "abcdefgh"}  # as of before some died
    monkeypatch.setattr(found, "_get_reserved_resources", lambda: reserved)
    return found, seen


def test_the_largest_number_that_shares_the_batch_is_taken_of_machines_that_stay(policy):
    policy, seen = policy

    def decided():
        return policy.make_decision_for_non_running_worker_group().num_workers

    assert decided() == 4
    seen.going = {"a", "b"}
    assert decided() == 2
    seen.alive, seen.going = set("abcdefgh"), set()
    assert decided() == 8


def test_a_number_that_cannot_be_started_is_left_alone_until_machines_come(policy):
    from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState

    policy, seen = policy
    assert policy.make_decision_for_non_running_worker_group().num_workers == 4
    failed = ReschedulingState(training_failed_error=RuntimeError("not within 60 s"))
    policy.after_controller_state_update(RunningState(), failed)
    assert policy.make_decision_for_non_running_worker_group().num_workers == 2
    seen.alive = seen.alive - {"a"} | {"f"}
    assert policy.make_decision_for_non_running_worker_group().num_workers == 4


def test_waiting_for_machines_is_told_and_ends(policy, monkeypatch):
    from ray.train.v2._internal.execution.scaling_policy import NoopDecision

    from raysweep.orchestration.on_ray import scaling_policy

    policy, seen = policy
    seen.alive = {"a"}
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert isinstance(policy.make_decision_for_non_running_worker_group(), NoopDecision)
    assert policy.postbox.heard == ["waiting for machines: the training needs 2 workers or more"]
    monkeypatch.setattr(scaling_policy, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match="no machines for 2 workers; the same command"):
        policy.make_decision_for_non_running_worker_group()


def matching_trials():
    base = matching.BASE["smoke"]()
    cells = matching.cells("smoke")
    return make_plan(matching, base, cells=cells, repeats=1, fingerprint="0").trials


def test_the_trunks_of_segmentors_are_trained_on_workers_too():
    """As trials would: the same stages, and settings that are allowed."""
    trials = matching_trials()
    found = dict(part for trial in trials for part in trainings(trial))
    wanted = {stage for trial in trials for stage in (trial.chain.pretrain, trial.chain.trunk)}
    assert found.keys() == wanted - {None}
    assert {trained.pretrain.method for trained in found.values()} == {"stylegan2", "moco"}
    for stage, trained in found.items():
        assert chain_of(trained, "0").pretrain == stage
        assert from_dict(Experiment, to_dict(trained)) == trained
