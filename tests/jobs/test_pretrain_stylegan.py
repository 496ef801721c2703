"""A generator is trained in this process, tracked, found again; bad input ends before that."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from raysweep.config import ConfigError
from raysweep.orchestration import cli
from raysweep.orchestration.compute import generative, worker
from raysweep.orchestration.tasks import pretraining
from raysweep.presets import smoke
from raysweep.represent.gan import Gan
from raysweep.represent.generators import read_generator
from tests.data.folders import write_folder

JOB = Path(__file__).parents[2] / "jobs" / "pretrain_stylegan.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("pretrain_stylegan", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def tracked_beside_the_results(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def arguments(storage, *more):
    return ["--preset", "smoke", "--storage", str(storage), *more]


def runs_of(storage):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raysweep/pretrain")
    return client, client.search_runs([experiment.experiment_id])


def curve_of(storage):
    return json.loads(next(storage.glob("stages/pretrain/*/curve.json")).read_text())


def test_smoke_trains_says_so_and_finds_it_again(job, tmp_path, capfd):
    assert job.main(arguments(tmp_path)) == 0
    lines = capfd.readouterr().out.splitlines()
    progress = [line for line in lines if " of 0.3 kimg, " in line]
    assert progress[0].startswith("0.2 of 0.3 kimg, ? left  loss/generator ")
    assert progress[-1].startswith("0.3 of 0.3 kimg, 0:00 left")
    assert "frechet_random_trunk" in progress[-1]
    folder = Path(next(line for line in lines if line.startswith("stage: ")).split()[1])
    assert {path.name for path in folder.glob("*.safetensors")} == {
        "generator.safetensors",
        "generator-0.320.safetensors",
    }
    assert read_generator(folder / "generator.safetensors").config == smoke().pretrain.gan.network
    check_tracked(tmp_path, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert job.main(arguments(tmp_path)) == 0
    again = capfd.readouterr().out
    assert "already trained" in again
    assert "kimg, " not in again
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(runs_of(tmp_path)[1]) == 1


def check_tracked(storage, folder):
    client, (run,) = runs_of(storage)
    assert run.info.status == "FINISHED"
    wanted = {"method": "stylegan2", "resolution": "16", "kimg": "0.32", "batch": "16"}
    wanted |= {"lr": "0.002", "seed": "0"}
    params = {key: run.data.params[f"pretrain.{key}"] for key in wanted}
    assert params == wanted
    for row in curve_of(storage):
        for name in row.keys() - {"step"}:
            history = client.get_metric_history(run.info.run_id, f"pretrain/{name}")
            points = {point.step: point.value for point in history}
            assert points[row["step"] * 16] == row[name], name  # images seen
            assert len(history) == len(points)
    names = {"loss/generator", "loss/path", "loss/discriminator", "loss/r1", "p"}
    assert {f"pretrain/{name}" for name in names} <= run.data.metrics.keys()
    assert "pretrain/frechet_random_trunk" in run.data.metrics
    kept = {Path(each.path).name for each in client.list_artifacts(run.info.run_id, "samples")}
    assert kept == {path.name for path in folder.glob("samples-*.png")}
    assert kept == {"samples-0.160.png", "samples-0.320.png"}


def test_interrupted_training_goes_on_under_the_same_run(job, tmp_path, capfd, monkeypatch):
    flags = ["--set", "pretrain.gan.path_weight=0", "--set", "pretrain.gan.measured=4"]
    assert job.main(arguments(tmp_path / "straight", *flags)) == 0
    step = Gan.step

    def halting(learner, batch):
        if learner.steps_taken == 15:
            raise KeyboardInterrupt
        return step(learner, batch)

    monkeypatch.setattr(generative, "run", partial(worker.run, checkpoint_seconds=0))
    monkeypatch.setattr(Gan, "step", halting)
    storage = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        job.main(arguments(storage, *flags))
    assert runs_of(storage)[1][0].info.status == "FAILED"
    monkeypatch.setattr(Gan, "step", step)
    capfd.readouterr()
    assert job.main(arguments(storage, *flags, "--dry-run")) == 0
    assert "to resume" in capfd.readouterr().out
    assert job.main(arguments(storage, *flags)) == 0
    for name in ("generator.safetensors", "curve.json", "samples-0.320.png"):
        ours = next(storage.glob(f"stages/pretrain/*/{name}")).read_bytes()
        assert ours == next((tmp_path / "straight").glob(f"stages/pretrain/*/{name}")).read_bytes()
    client, (run,) = runs_of(storage)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "pretrain/loss/generator")
    assert sorted(point.step for point in history) == [160, 320]


def test_dry_run_starts_nothing(job, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(Gan, "__init__", lambda *_, **__: pytest.fail("training has begun"))
    assert job.main(arguments(tmp_path / "runs", "--dry-run")) == 0
    said = capfd.readouterr().out
    assert "stylegan2, 20 steps of 16 images" in said
    assert "to run" in said
    assert not (tmp_path / "runs").exists()


BAD = [
    (["--set", "pretrain.gan.network.resolution=24"], "resolution = 24: take a power of two"),
    (["--set", "pretrain.method=moco"], "'moco': allowed here are stylegan2"),
    (["--workers", "3"], "--workers 3: must divide pretrain.gan.batch = 16"),
    (["--workers", "16"], "must divide the path length batch"),
    (
        ["--set", "pretrain.gan.batch=18"],
        "batch = 18: must be a multiple of gan.network.mbstd_group",
    ),
    (["--set", "pretrain.gan.batch=80"], "64 images are too few"),
    (["--set", "pretrain.gan.inception=/no/such/file"], "inception = '/no/such/file' cannot be"),
    (["--set", "pretrain.gan.kmig=1"], "did you mean pretrain.gan.kimg"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_ends_before_training(job, flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "_train", lambda *_, **__: pytest.fail("training has begun"))
    with pytest.raises(ConfigError, match=re.escape(message)):
        job.main(arguments(tmp_path / "runs", *flags))
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "count"), [(6, 31, 31), (6, 0, 4)]
)  # 4 to train on
def test_a_folder_with_too_few_images_is_refused(
    job, labelled, unlabelled, count, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretraining, "_train", lambda *_, **__: pytest.fail("training has begun"))
    data = write_folder(tmp_path / "data", labelled=labelled, unlabelled=unlabelled)
    with pytest.raises(ConfigError, match=rf"\b{count} images are too few .* give 32 or more"):
        job.main(arguments(tmp_path / "runs", "--data", str(data)))


def test_bad_input_exits_with_code_2(job, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(sys, "argv", ["job", *arguments(tmp_path, "--workers", "3")])
    with pytest.raises(SystemExit) as exited:
        cli.finish(job.main)
    assert exited.value.code == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: --workers 3: must divide")


def test_sample_grids_are_pictures_of_64_images(job, tmp_path):
    flags = ["--set", "pretrain.gan.kimg=0.016", "--set", "pretrain.gan.measured=2"]
    assert job.main(arguments(tmp_path, *flags)) == 0
    (picture,) = tmp_path.glob("stages/pretrain/*/samples-*.png")
    page = np.asarray(Image.open(picture))
    assert page.shape == (128, 128, 3)
    assert page.std() > 0
