"""A search puts the configurations in order, whichever direction is better."""

from __future__ import annotations

import math
from types import SimpleNamespace

import optuna
import pytest

from raysweep.config import override
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.search import STUDY, News, Search, worst
from raysweep.presets import smoke

KEPT = (1, 2, 100)  # more candidates than steps are refused
DISTRIBUTION = optuna.distributions.CategoricalDistribution(KEPT)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggest(preset, trial):
    return {"fit.checkpoints": trial.suggest_categorical("fit.checkpoints", KEPT)}


def search_of(mode, place, *, samples=3):
    space = SimpleNamespace(METRIC=("val_miou", mode), suggest=suggest, repeat=lambda index: {})
    base = override(smoke(), {"pretrain.method": "random", "pretrain.trunk.width": 4})
    return Search(space, "smoke", base, repeats=1, samples=samples, study=place)


@pytest.mark.parametrize(("mode", "order"), [("max", [2, 1, 100]), ("min", [1, 2, 100])])
def test_the_best_comes_first_and_what_failed_last(mode, order, tmp_path):
    search = search_of(mode, tmp_path / "optuna.db")
    assert search.found() == []
    study = optuna.create_study(
        study_name=STUDY,
        storage=f"sqlite:///{search.study}",
        direction={"max": "maximize", "min": "minimize"}[mode],
    )
    for kept, value in ((100, worst(mode)), (1, -0.5), (2, 0.25)):
        params, distributions = {"fit.checkpoints": kept}, {"fit.checkpoints": DISTRIBUTION}
        study.add_trial(
            optuna.create_trial(value=value, params=params, distributions=distributions)
        )
    assert [changes["fit.checkpoints"] for changes in search.found()] == order
    assert search.tried() == 3
    assert study.best_params["fit.checkpoints"] == order[0]


@pytest.mark.ray
@pytest.mark.timeout(200)
def test_a_configuration_that_fails_is_reported_and_never_the_best(cluster, tmp_path):
    search, finished, failures = search_of("min", tmp_path / "optuna.db"), [], []
    news = News(
        finished=lambda changes, repeat: finished.append(changes["fit.checkpoints"]),
        failed=lambda changes, repeat, message: failures.append(
            (changes["fit.checkpoints"], message)
        ),
    )
    search.run(storage=Storage(str(tmp_path / "runs")), news=news)
    assert search.tried() == 3
    assert finished, "the first three draws hold both kinds"
    assert {kept for kept, _ in failures} == {100}
    assert all("at most one per step" in message for _, message in failures)
    assert 100 not in finished
    assert len(finished) + len(failures) == 3
    order = [changes["fit.checkpoints"] for changes in search.found()]
    assert order[0] != 100
    assert order[-1] == 100
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{search.study}")
    assert math.isfinite(study.best_value)
