"""The doctor names planted faults with their remedies, and finds nothing where nothing is wrong."""

from __future__ import annotations

import os
import time
from collections import namedtuple

import pytest

from raysweep.__main__ import main
from raysweep.orchestration.doctor import examination as doctor
from raysweep.orchestration.doctor import facts as doctor_facts
from raysweep.orchestration.doctor.case import Finding, take
from raysweep.orchestration.doctor.examination import CHECKS, Check, examine
from raysweep.orchestration.doctor.machine import built_for
from raysweep.orchestration.on_ray.elastic import Workers
from tests.orchestration.doctor_cases import built_with_cuda, driver, flags, found

Usage = namedtuple("Usage", "total used free")


pytestmark = pytest.mark.usefixtures("plain_user")


def test_nothing_is_found_where_nothing_is_wrong(tmp_path, capsys):
    before = set(os.environ)
    command = ["doctor", "--preset", "smoke", "--storage", str(tmp_path / "runs")]
    code = main(command)
    out = capsys.readouterr().out
    assert code == 0, out
    assert "0 failed, 0 to look at" in out
    for check in CHECKS:
        assert (f" {check.name} " in out) != check.of_clusters
    assert not list((tmp_path / "runs").iterdir())
    assert set(os.environ) == before


def unwritable(monkeypatch, tmp_path):
    return {"storage": "/proc/nowhere"}


def unknown_scheme(monkeypatch, tmp_path):
    return {"storage": "ftp://host/runs"}


def dead_server(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    return {}


def broken_database(monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_text("no database at all" * 100)
    return {}


def file_store(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    return {}


def full_disk(monkeypatch, tmp_path):
    usage = Usage(100 * 2**30, 100 * 2**30 - 1000, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(doctor_facts, "SHM", tmp_path / "nowhere")
    return {}


def old_torch(monkeypatch, tmp_path):
    true = doctor_facts.version_of
    monkeypatch.setattr(
        doctor_facts, "version_of", lambda name: "2.3.1+cu118" if name == "torch" else true(name)
    )
    return {}


def no_optuna(monkeypatch, tmp_path):
    true = doctor_facts.version_of
    monkeypatch.setattr(
        doctor_facts, "version_of", lambda name: "missing" if name == "optuna" else true(name)
    )
    return {}


def old_gpu(monkeypatch, tmp_path):
    built_with_cuda(monkeypatch)
    driver(monkeypatch, tmp_path / "bin", "echo 'Tesla V100-SXM2-16GB, 16384, 7.0, 580.65.06'")
    return {}


def old_driver(monkeypatch, tmp_path):
    built_with_cuda(monkeypatch)
    driver(monkeypatch, tmp_path / "bin", "echo 'NVIDIA A10G, 23028, 8.6, 535.183.01'")
    return {}


def too_many_workers(monkeypatch, tmp_path):
    return {"workers": Workers(100_000, 100_000)}


def small_shm(monkeypatch, tmp_path):
    shm, true = tmp_path / "shm", doctor_facts.shutil.disk_usage
    shm.mkdir()
    monkeypatch.setattr(doctor_facts, "SHM", shm)
    small = Usage(64 * 2**20, 0, 64 * 2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda place: small if place == shm else true(place))
    return {}


def not_a_dataset(monkeypatch, tmp_path):
    (tmp_path / "parts" / "images").mkdir(parents=True)
    return {"data": str(tmp_path / "parts")}


def named_token_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    return {}


def misspelt_mode(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "tokens")
    return {}


def foreign_ray_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", "/proc/sys")
    return {}


PLANTED = [
    (unwritable, "storage", "/proc/nowhere", "this user can write to"),
    (unknown_scheme, "storage", "ftp://host/runs", "--storage"),
    (dead_server, "MLflow", "127.0.0.1", "mlflow server"),
    (broken_database, "MLflow", "not a database", "MLFLOW_TRACKING_URI"),
    (file_store, "MLflow", "plain directories", "migrate-filestore"),
    (full_disk, "disk", "0.0 GiB free", "RAYSWEEP_SCRATCH"),
    (full_disk, "Ray's directory", "100% full", "95%"),
    (old_torch, "versions", "torch 2.3.1+cu118, needed >=", "pip install"),
    (no_optuna, "versions", "optuna missing, needed", "pip install"),
    (old_gpu, "GPUs", "Tesla V100-SXM2-16GB has compute capability 7.0", "cu126"),
    (old_driver, "GPUs", "driver 535.183.01; torch's CUDA 13.2 needs 580", "driver"),
    (too_many_workers, "workers", "--workers 100000: there are", "ask for --workers"),
    (small_shm, "/dev/shm", "0.06 GiB", "--shm-size"),
    (not_a_dataset, "data", "classes.json", "--data"),
    (named_token_is_missing, "tokens", "no token can be read in", "get-auth-token"),
    (misspelt_mode, "tokens", "RAY_AUTH_MODE=tokens", "disabled"),
    (foreign_ray_directory, "Ray's directory", "cannot be written", "RAY_TMPDIR"),
]


@pytest.mark.parametrize(
    ("plant", "name", "message", "remedy"), PLANTED, ids=[row[0].__name__ for row in PLANTED]
)
def test_a_planted_fault_is_named_with_its_remedy(
    plant, name, message, remedy, monkeypatch, tmp_path
):
    findings = found(tmp_path, **plant(monkeypatch, tmp_path))
    finding = findings[name]
    assert finding.level == "fail"
    assert message in finding.message
    assert remedy in finding.remedy
    assert "secret" not in str(findings)
    # one fault is one finding, and none is hidden
    assert set(findings) == {check.name for check in CHECKS if not check.of_clusters}
    allowed = {name, "disk", "Ray's directory"} if plant is full_disk else {name}
    assert {other for other, it in findings.items() if it.level == "fail"} == allowed


def test_a_check_that_hangs_or_breaks_hides_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CHECK_SECONDS", 0.2)
    checks = (
        Check("hangs", lambda _: time.sleep(20)),
        Check("breaks", lambda _: 1 / 0),
        Check("works", lambda _: Finding("ok", "fine")),
    )
    start = time.monotonic()
    findings = examine(take(flags(tmp_path)), checks)
    assert time.monotonic() - start < 10
    assert [finding.level for finding in findings.values()] == ["fail", "fail", "ok"]
    assert "no answer" in findings["hangs"].message
    assert "ZeroDivisionError" in findings["breaks"].message


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ["sm_80", "sm_90"], True),  # later minor version
        ((8, 0), ["sm_86"], False),  # earlier one
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled by the driver
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["sm_100"], True),
        ((8, 0), ["gfx90a"], False),
    ],
)
def test_which_code_runs_on_which_gpu(capability, architectures, runs):
    assert built_for(capability, architectures) is runs


def test_a_gpu_that_is_too_small_is_named(monkeypatch, tmp_path):
    built_with_cuda(monkeypatch)
    driver(monkeypatch, tmp_path / "bin", "echo 'NVIDIA A10G, 23028, 8.6, 580.65.06'")
    assert found(tmp_path)["GPU memory"].level == "ok"
    findings = found(tmp_path, preset="paper", data="face")
    assert findings["GPUs"] == Finding("ok", "1 x NVIDIA A10G")
    assert findings["GPU memory"].level == "warn"
    assert "NVIDIA A10G: 22 GiB; needed for " in findings["GPU memory"].message
    assert "larger GPUs" in findings["GPU memory"].remedy


def test_a_flag_that_cannot_be_used_ends_with_code_2(capsys):
    assert main(["doctor", "--preset", "huge"]) == 2
    assert "--preset 'huge'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "--workers", "0"])
    assert "--workers: '0' is neither" in capsys.readouterr().err
