"""A student carries the terms of what it was made from."""

import argparse
import json

import mlflow
import pytest

from raysweep.config import override
from raysweep.data.dataset import Dataset
from raysweep.data.parquet import read_parquet
from raysweep.licences import TERMS, non_commercial
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.provenance import is_non_commercial, note, origins_of, tags
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.exporting import run_export
from raysweep.presets import smoke
from tests.data.published_trees import imported, write_celebamask

NUMBERS = [*range(10), *range(27500, 27503), *range(28000, 28004), *range(29500, 29503)]
QUICK = {"pretrain.method": "rgb", "distilled": True, "fit.steps": 4, "student.epochs": 1}


def trained(place, dataset):
    experiment = override(smoke(), QUICK)
    compute(experiment, Run(StageStore(place), dataset, device_here(), lambda _: None))
    return chain_of(experiment, dataset.info.fingerprint)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return Storage(str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def celeba(storage, tmp_path_factory):
    """The stages of a student that learnt from a miniature CelebAMask-HQ, as it is imported."""
    folder = tmp_path_factory.mktemp("published")
    tree, target = write_celebamask(folder / "download", NUMBERS), folder / "celeba"
    imported(tree, target, kind="celebamask-hq", partition="lagm", merge="face8")
    return trained(storage, Dataset(read_parquet(str(target))))


def exported(storage, chain, out, **options):
    flags = {"register": None, "dry_run": False, "model": f"distill/{chain.distill.key}"}
    return run_export(argparse.Namespace(storage=storage.uri, out=out, **(flags | options)))


def test_an_exported_student_carries_the_terms_of_its_data(
    storage, celeba, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr("raysweep.orchestration.tasks.exporting._installed", lambda name: False)
    assert exported(storage, celeba, tmp_path, register="faces") == 0
    terms = TERMS["celebamask-hq"]
    text = (tmp_path / "LICENCES.txt").read_text()
    assert text.startswith("not for commercial use")
    for part in ("data set celebamask-hq-face8", terms.licence, terms.cite):
        assert part in text
    assert (tmp_path / "student.pt2").is_file()
    assert "note: not for commercial use" in capfd.readouterr().out
    uri = f"sqlite:///{storage.local('mlflow.db')}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version("faces", 1)
    for found in (version.tags, client.get_run(version.run_id).data.tags):
        assert found["raysweep.non_commercial"] == "yes"
        assert terms.licence in found["raysweep.licences"]


def test_a_dry_run_says_it_and_writes_nothing(storage, celeba, tmp_path, capfd):
    assert exported(storage, celeba, tmp_path / "out", dry_run=True) == 0
    assert "note: not for commercial use" in capfd.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def built_in(storage):
    return trained(storage, opened(smoke().data, storage.uri))


def test_rendered_faces_restrict_nothing(storage, built_in):
    origins = origins_of(StageStore(storage), "distill", built_in.distill.key)
    assert [origin.what for origin in origins] == ["data set face"]
    assert tags(origins)["raysweep.non_commercial"] == "no"


def finished(storage, name, config, inputs):
    stage = Stage(name, config, inputs)
    place = storage.local(*stage.place)
    place.mkdir(parents=True)
    record = {"name": name, "key": stage.key, "config": config, "inputs": inputs}
    (place / "stage.json").write_text(json.dumps(record))
    (place / "DONE").touch()
    return stage.key


@pytest.mark.parametrize(
    ("name", "config", "inputs", "said"),
    [
        ("distill", {}, {"shards": "0123"}, "pseudo-labels with fingerprint 0123"),
        ("distill", {}, {"label": "feed"}, "label/feed, which is not in this storage"),
        ("pretrain", {"represent": {"method": "generator"}}, {}, "imported weights"),
        ("label", {}, {"data": "beef"}, "data set with fingerprint beef"),
    ],
)
def test_what_nothing_records_is_unknown_not_free(tmp_path, name, config, inputs, said):
    storage = Storage(str(tmp_path))
    origins = origins_of(StageStore(storage), name, finished(storage, name, config, inputs))
    assert said in origins[0].what
    assert is_non_commercial(origins) is None
    assert "find out" in note(origins)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC BY-NC 4.0", True),
        ("for non-commercial research", True),
        ("Creative Commons NC", True),
        ("unknown", None),
        ("", None),
        ("CC BY 4.0", False),
        ("Apache-2.0", False),
        ("synchronised data of my own", False),
        *[(terms.licence, terms.non_commercial) for terms in TERMS.values()],
    ],
)
def test_licences_are_told_apart(licence, expected):
    assert non_commercial(licence) is expected
