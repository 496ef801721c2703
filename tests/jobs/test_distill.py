"""From a teacher to an exported student by the jobs' own commands, with a kill on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from raysweep.config import ConfigError, override
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.models import load_student
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.exporting import Exported, export_student
from raysweep.orchestration.tasks.prediction import find_model
from raysweep.orchestration.tracking.client import tracked_by_default
from raysweep.presets import smoke

ROOT = Path(__file__).parents[2]
TEACHER = override(smoke(), {"pretrain.method": "rgb", "distilled": True})


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A teacher, its labels and its student, computed in this process."""
    place = Storage(str(tmp_path_factory.mktemp("runs")))
    dataset = opened(TEACHER.data, place.uri)
    compute(TEACHER, Run(StageStore(place), dataset, device_here(), lambda _: None))
    return place


@pytest.fixture(scope="module")
def chain(storage):
    return chain_of(TEACHER, opened(TEACHER.data, storage.uri).info.fingerprint)


def command(job, *flags):
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]


def run(job, *flags):
    return subprocess.run(command(job, *flags), capture_output=True, text=True, check=False)


def load(job):
    spec = importlib.util.spec_from_file_location(job, ROOT / "jobs" / f"{job}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labelling(storage, chain, out):
    teacher = f"fit/{chain.fit.key}"
    flags = ["--preset", "smoke", "--storage", storage.uri, "--data", "face", "--out", out]
    return ["pseudo_label", "--teacher", teacher, *flags]


@pytest.fixture(scope="module")
def shards(storage, chain, tmp_path_factory):
    """Shards of the job, whose driver was killed when the first file was there."""
    out = tmp_path_factory.mktemp("labels") / "shards"
    process = subprocess.Popen(command(*labelling(storage, chain, out)), stdout=subprocess.DEVNULL)
    while not list(out.glob("shard-000000.json")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = (out / "shard-000000.parquet").stat().st_mtime_ns
    done = run(*labelling(storage, chain, out))
    assert done.returncode == 0, done.stderr
    assert (out / "shard-000000.parquet").stat().st_mtime_ns == before
    return out, done


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_ray_data_labels_as_one_process_does_whatever_is_killed(storage, chain, shards):
    out, done = shards
    assert "the teacher waited" in done.stdout
    assert "40 images in 3 files" in done.stdout
    assert done.stderr == ""
    ours = storage.local(*chain.label.place)
    for file in ("shard-000000.parquet", "shard-000002.parquet", "manifest.json"):
        assert (out / file).read_bytes() == (ours / file).read_bytes(), file


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_two_workers_train_a_student_that_is_scored_tracked_and_found(storage, shards, tmp_path):
    place = tmp_path / "runs"
    flags = ["--preset", "smoke", "--data", "face", "--storage", place, "--workers", "2"]
    done = run("distill", "--shards", shards[0], *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mIoU 0." in done.stdout
    assert "waited for data" in done.stdout
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    where = client.get_experiment_by_name("raysweep/distill")
    (found,) = client.search_runs([where.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.metrics["best/miou"] == found.data.metrics["evaluate/miou"]
    history = client.get_metric_history(found.info.run_id, "distill/loss")
    assert sorted(point.step for point in history) == [80, 160]
    chosen = find_model(Storage(str(place)), found.info.run_id)
    assert chosen.model.directory.parent.name == "distill"
    record = json.loads((chosen.model.directory / "stage.json").read_text())
    assert record["metrics"]["workers"] == 2


def test_one_process_needs_no_ray_and_finds_the_stage_of_a_sweep(
    storage, chain, monkeypatch, capfd
):
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    flags = ["--preset", "smoke", "--data", "face", "--storage", storage.uri]
    job = load("distill")
    assert job.main(["--shards", f"label/{chain.label.key}", *flags]) == 0
    printed = capfd.readouterr().out
    assert "already trained" in printed
    assert str(chain.distill) in printed
    changed = ["--set", "student.steps=10", "--set", "student.epochs=null"]
    assert job.main(["--shards", f"label/{chain.label.key}", *flags, *changed]) == 0
    assert "mIoU 0." in capfd.readouterr().out
    found = StageStore(storage).finished("distill")
    assert len(found) == 2


REFUSED = [
    ("distill", ["--shards", "/nowhere", "--data", "face"], "--shards '/nowhere'.*label again"),
    ("distill", ["--shards", "LABEL", "--data", "face", "--workers", "3"], "must divide student"),
    ("distill", ["--shards", "LABEL", "--data", "car"], "the shards have 12 classes, car has"),
    (
        "distill",
        ["--shards", "LABEL", "--set", "student.batch=41"],
        "batch = 41: the shards hold 40 images",
    ),
    ("distill", ["--shards", "LABEL", "--max-bad-rows", "-1"], "--max-bad-rows -1: 0 or more"),
    ("pseudo_label", ["--teacher", "fit/ffff"], "--teacher 'fit/ffff' is no finished fit"),
    ("pseudo_label", ["--teacher", "FIT", "--generate", "5"], "generates no images"),
    ("pseudo_label", ["--teacher", "FIT", "--generate", "5", "--data", "face"], "one of the two"),
    ("pseudo_label", ["--teacher", "FIT", "--set", "label.portion=2"], "label.portion = 2"),
]


@pytest.mark.parametrize(("job", "flags", "message"), REFUSED)
def test_bad_input_is_refused_before_ray_starts(storage, chain, monkeypatch, job, flags, message):
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    names = {"LABEL": f"label/{chain.label.key}", "FIT": f"fit/{chain.fit.key}"}
    flags = [names.get(flag, flag) for flag in flags]
    with pytest.raises(ConfigError, match=message):
        load(job).main(["--preset", "smoke", "--storage", storage.uri, *flags])


def test_dry_runs_start_nothing(storage, chain, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    shared = ["--preset", "smoke", "--storage", storage.uri, "--dry-run"]
    out = tmp_path / "out"
    load("pseudo_label").main(["--teacher", f"fit/{chain.fit.key}", "--out", str(out), *shared])
    load("distill").main(["--shards", f"label/{chain.label.key}", *shared])
    printed = capfd.readouterr().out
    assert "labels 40 images of face at 32 px" in printed
    assert "20 steps of 8 images, 40 in 3 files" in printed
    assert not out.exists()


# export


@pytest.fixture(params=["unet", "deeplab_thin"])
def student(request, storage, chain):
    model = load_student(StageStore(storage), chain.distill.key, device_here())
    if request.param == "deeplab_thin":
        from raysweep.distill.student_config import StudentConfig, build_student

        config = StudentConfig(network="deeplab_thin", resolution=32)
        return Exported(build_student(config, 12)).eval(), 32
    return Exported(model.network).eval(), model.px


class Screen:
    def __init__(self):
        self.lines = []

    def print(self, text, **_):
        self.lines.append(text)


def test_an_exported_student_says_the_same_of_any_number_of_images(student, tmp_path):
    network, px = student
    screen = Screen()
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.uniform(0, 255, (5, 3, px, px)).astype(np.float32))
    export_student(network, images[:2], tmp_path, screen)
    assert screen.lines[0].startswith("student.pt2: scores differ by at most")
    with torch.no_grad():
        expected = network(images)
    program = torch.export.load(tmp_path / "student.pt2").module()
    assert torch.allclose(program(images), expected, atol=1e-4)
    runtime = pytest.importorskip("onnxruntime", reason="pip install raysweep[export]")
    session = runtime.InferenceSession(tmp_path / "student.onnx")
    (scores,) = session.run(None, {"image": images.numpy()})
    assert np.allclose(scores, expected.numpy(), atol=1e-3)


def test_a_student_that_came_out_different_is_refused(student, tmp_path, monkeypatch):
    network, px = student
    monkeypatch.setattr("raysweep.orchestration.tasks.exporting.TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match=r"student\.pt2: scores differ .* do not use the file"):
        export_student(network, torch.rand(2, 3, px, px), tmp_path, Screen())


def test_the_job_exports_registers_and_takes_students_only(storage, chain, tmp_path, capfd):
    job = load("export")
    flags = ["--storage", storage.uri, "--out", str(tmp_path)]
    job.main(["--model", f"distill/{chain.distill.key}", "--register", "parts", *flags])
    assert "registered in MLflow as parts" in capfd.readouterr().out
    uri = f"sqlite:///{storage.local('mlflow.db')}"
    version = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("parts", 1)
    with tracked_by_default(storage):
        info = mlflow.models.get_model_info(version.source)
    assert info.signature.inputs.inputs[0].shape == (-1, 3, 16, 16)
    assert info.saved_input_example_info is not None
    plain = override(TEACHER, {"distilled": False})
    dataset = opened(plain.data, storage.uri)
    compute(plain, Run(StageStore(storage), dataset, device_here(), lambda _: None))
    with pytest.raises(ConfigError, match="only students are exported"):
        job.main(["--model", f"fit/{chain.fit.key}", *flags])


def test_registering_leaves_no_trace_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = Storage(str(tmp_path / "runs"))
    with tracked_by_default(storage):
        assert mlflow.get_tracking_uri().endswith("runs/mlflow.db")
    assert "MLFLOW_TRACKING_URI" not in os.environ
