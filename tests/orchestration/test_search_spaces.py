"""Every page of ``search_spaces/`` expands into experiments that can be run."""

from __future__ import annotations

import optuna
import pytest

from raysweep.config import override
from raysweep.evaluate.paper_tables import PAPER_TABLES
from raysweep.evaluate.papers import table_of
from raysweep.orchestration.planning.plan import make_plan
from raysweep.presets import PRESETS
from search_spaces import matching, projection, projector, resolution, shots

SPACES = [resolution, projector, projection, matching, shots]
optuna.logging.set_verbosity(optuna.logging.WARNING)


def plan_of(space, preset, repeats=2):
    base = space.BASE[preset]()
    cells = space.cells(preset)
    return make_plan(space, base, cells=cells, repeats=repeats, fingerprint="abc")


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
@pytest.mark.parametrize("preset", PRESETS)
def test_grids_expand_into_distinct_experiments(space, preset):
    plan = plan_of(space, preset)
    assert len({trial.chain.evaluate.key for trial in plan.trials}) == len(plan.trials)
    assert set(space.BASELINES) <= set(plan.rows)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
def test_a_page_shows_the_papers_that_its_cells_name_and_rows_that_it_has(space):
    shown = {table.id for table in space.PAPERS}
    assert shown <= set(PAPER_TABLES)
    plans = [plan_of(space, preset) for preset in PRESETS]
    trials = [trial for plan in plans for trial in plan.trials]
    assert {table_of(trial.cell.paper) for trial in trials if trial.cell.paper} <= shown
    assert set(space.CURVES) <= {trial.row for trial in trials}


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_search_chooses_can_be_run_and_is_found_again(space, preset):
    base, study = (
        space.BASE[preset](),
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)),
    )
    for _ in range(20):
        trial = study.ask()
        changes = space.suggest(preset, trial)
        override(base, {**changes, **space.repeat(1)})
        again = space.suggest(preset, optuna.trial.FixedTrial(trial.params))
        assert again == changes
        override(base, {**space.place(preset, changes).changes, **space.repeat(1)})
        study.tell(trial, 0.5)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
def test_repeats_share_representations_and_nothing_later(space):
    plan = plan_of(space, "demo", repeats=3)
    for configuration in {trial.configuration for trial in plan.trials}:
        chains = [t.chain for t in plan.trials if t.configuration == configuration]
        assert len({chain.pretrain.key for chain in chains}) == 1
        assert len({chain.fit.key for chain in chains}) == 3


def test_rows_of_the_projector_sweep_play_the_papers_part():
    papers = {trial.configuration: trial.cell.paper for trial in plan_of(projector, "demo").trials}
    wanted = "ganorcon_t2[pretraining + projector=MoCo + CONV, evaluated=distilled]"
    assert papers[("MoCo v2 + CONV", "distilled")] == wanted
    assert papers[("random weights + MLP", "direct")] is None
    named = {paper for paper in papers.values() if paper}
    assert len(named) == len(projector.PAPER.rows) * len(projector.PAPER.columns)


def test_every_representation_is_trained_once():
    plan = plan_of(projector, "demo", repeats=3)
    trained = {t.chain.pretrain.key for t in plan.trials if t.experiment.pretrain.learnt}
    assert len(trained) == 4  # MoCo v2, SimSiam, StyleGAN2, and the generator left random
