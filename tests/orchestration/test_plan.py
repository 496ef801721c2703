"""A plan shares what can be shared and orders trials so that nobody waits."""

from __future__ import annotations

import pytest

from raysweep.config import override
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.planning.plan import in_order, make_plan
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.presets import PRESETS
from search_spaces import resolution


def plan_of(preset, repeats=3):
    base, cells = resolution.BASE[preset](), resolution.cells(preset)
    return make_plan(resolution, base, cells=cells, repeats=repeats, fingerprint="abc")


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage(str(tmp_path)))


@pytest.mark.parametrize("preset", PRESETS)
def test_three_pretrainings_not_nine(preset):
    plan = plan_of(preset)
    assert len(plan.trials) == (3 + len(resolution.BASELINES)) * 3 * 3
    distinct = [stage for stage in plan.stages() if stage.name == "pretrain"]
    learnt = {trial.chain.pretrain.key for trial in plan.trials if trial.experiment.pretrain.learnt}
    assert len(learnt) == 3
    assert len(distinct) == 3 + len(resolution.BASELINES)


def test_repeats_differ_in_seed_and_draw():
    trials = [trial for trial in plan_of("demo").trials if trial.configuration == ("32 px", "64")]
    assert {trial.experiment.data.draw for trial in trials} == {0, 1, 2}
    assert {trial.experiment.fit.seed for trial in trials} == {0, 1, 2}
    assert len({trial.chain.fit.key for trial in trials}) == 3


def test_every_run_has_the_same_axes_as_numbers():
    axes = [dict(trial.axes) for trial in plan_of("demo").trials]
    assert len({tuple(swept) for swept in axes}) == 1
    assert all(isinstance(swept["pretrain.resolution"], int) for swept in axes)


def test_cells_are_matched_with_the_papers_by_rank():
    plan = plan_of("demo")
    cells = {trial.configuration: trial.cell.paper for trial in plan.trials}
    assert cells[("16 px", "64")] == "ganorcon_appE[segmentor=512, moco=96]"
    assert cells[("random weights", "64")] is None


def test_leaders_first_then_independent_trials_then_followers(store):
    plan = plan_of("demo")
    ordered = in_order(
        list(plan.trials), Clock(plan.trials, store, {"val": 50, "test": 100}), store
    )
    assert sorted(map(str, ordered)) == sorted(map(str, plan.trials))
    longest_first = sorted({trial.axes[resolution.PRETRAIN] for trial in plan.trials} - {0})[::-1]
    assert [trial.row for trial in ordered[:3]] == [f"{px} px" for px in longest_first]
    baselines = len(resolution.BASELINES) * 9
    assert {trial.row for trial in ordered[3 : 3 + baselines]} == set(resolution.BASELINES)


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"pretrain.lr": 0.5}, "pretrain"),
        ({"pretrain.moco.temperature": 0.5}, "pretrain"),
        ({"fit.lr": 0.5}, "fit"),
        ({"data.shots": 3}, "fit"),
        ({"data.draw": 5}, "fit"),
        ({"evaluate.absent": "skip"}, "evaluate"),
    ],
)
def test_a_change_reruns_its_stage_and_what_follows_and_nothing_else(change, stage):
    base = resolution.BASE["smoke"]()
    before = plan_with(base)
    after = plan_with(override(base, change))
    names = [one.name for one, other in zip(before, after, strict=True) if one.key != other.key]
    assert names == ["pretrain", "fit", "evaluate"][["pretrain", "fit", "evaluate"].index(stage) :]


def plan_with(base):
    from raysweep.orchestration.compute.chain import chain_of

    return chain_of(base, "abc")


def test_settings_of_the_other_method_do_not_matter():
    base = resolution.BASE["smoke"]()
    other = override(base, {"pretrain.simsiam.dim": 64})
    assert plan_with(base).pretrain.key == plan_with(other).pretrain.key
