"""The doctor names planted faults with their remedies, and finds nothing where nothing is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from raysweep.__main__ import main
from raysweep.orchestration import doctor, doctor_cluster, doctor_facts
from raysweep.orchestration.doctor import CHECKS, Check, examine
from raysweep.orchestration.doctor_case import Finding, take
from raysweep.orchestration.doctor_cluster import ClusterFacts, NodeType
from raysweep.orchestration.doctor_facts import marked, touch
from raysweep.orchestration.doctor_machine import built_for
from raysweep.orchestration.storage import Storage

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    """A user without settings, tokens or GPUs, whose /dev/shm is large enough."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(doctor_facts, "SHM", tmp_path)
    driver(monkeypatch, tmp_path / "bin", "exit 1")


def driver(monkeypatch, place, script):
    """Put an ``nvidia-smi`` of our own first on the path."""
    place.mkdir(exist_ok=True)
    command = place / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)


def flags(tmp_path, **changes):
    storage = str(tmp_path / "runs")
    known = {"storage": storage, "address": None, "preset": "smoke", "data": None, "workers": 1}
    return argparse.Namespace(**(known | changes))


def found(tmp_path, **changes):
    return examine(take(flags(tmp_path, **changes)))


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


def built_with_cuda(monkeypatch):
    monkeypatch.setattr("torch.version.cuda", "13.2")
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])


def too_many_workers(monkeypatch, tmp_path):
    return {"workers": 100_000}


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


def elsewhere(case, tmp_path):
    """The second node has a directory of that name, but not ours."""
    with marked(Storage(str(tmp_path / "runs"))) as marker:
        seen = touch(str(tmp_path / "own"), marker=marker, data="face")
        assert touch(str(tmp_path / "runs"), marker=marker, data="face").problem is None
    return second(case, storage=seen)


def hanging_mount(case, tmp_path):
    return second(case, storage=None, storage_problem="no answer in 60 s")


def data_is_local(case, tmp_path):
    return second(case, storage=touch(str(tmp_path / "runs"), marker=None, data="/nowhere/parts"))


def silent_node(case, tmp_path):
    return second(case, facts=None, problem="ModuleNotFoundError: No module named 'raysweep'")


def older_code(case, tmp_path):
    return second(case, facts=case.here.facts.model_copy(update={"code": "0a1b2c"}))


def other_torch(case, tmp_path):
    packages = case.here.facts.packages | {"torch": "2.12.0"}
    return second(case, facts=case.here.facts.model_copy(update={"packages": packages}))


def little_memory(case, tmp_path):
    return second(case, facts=case.here.facts.model_copy(update={"memory_gib": 0.5}))


def gpus_not_up(case, tmp_path):
    types = (NodeType(name="gpu", resources={"CPU": 8.0, "GPU": 1.0}, most=4),)
    return with_cluster(case, types=types)


def workers_to_be_started(case, tmp_path):
    types = (NodeType(name="cpu", resources={"CPU": 8.0}, most=4),)
    return dataclasses.replace(with_cluster(case, types=types), workers=20)


def more_workers_than_types(case, tmp_path):
    return dataclasses.replace(workers_to_be_started(case, tmp_path), workers=33)


def no_dashboard(case, tmp_path):
    return dataclasses.replace(with_cluster(case, state_problem="no dashboard"), workers=2)


PLANTED_IN_A_CLUSTER = [
    (elsewhere, "storage", "fail", "second: ", "s3://"),
    (hanging_mount, "storage", "fail", "second: no answer", "shared mount"),
    (data_is_local, "data", "fail", "not there on second", "every node"),
    (silent_node, "cluster", "fail", "second: ModuleNotFoundError", "install this raysweep"),
    (older_code, "same code", "fail", "source 0a1b2c", "same checkout"),
    (other_torch, "same code", "fail", "torch 2.12.0 in place of", "constraints.txt"),
    (little_memory, "memory", "fail", "second has 0.5 GiB", "more memory"),
    (lambda case, _: second(case, skew=90.0), "clocks", "warn", "90 s", "time server"),
    (gpus_not_up, "workers", "warn", "no GPU machine is up", "min_workers: 1"),
    (workers_to_be_started, "workers", "warn", "autoscaler may start more", "min_workers"),
    (more_workers_than_types, "workers", "fail", "no more can be started", "--workers 32"),
    (no_dashboard, "State API", "fail", "no dashboard", "--include-dashboard=true"),
]


def second(case, **changes):
    """A cluster of two machines like this one, the second with changes; nothing was joined."""
    other = case.here.model_copy(update={"name": "second"} | changes)
    return with_cluster(case, nodes=(case.here, other))


def with_cluster(case, **parts):
    nodes = tuple(
        case.here.model_copy(update={"name": name, "resources": {"CPU": 2.0, "GPU": 0.0}})
        for name in ("first", "second")
    )
    facts = ClusterFacts(**({"nodes": nodes} | parts))
    return dataclasses.replace(case, address="10.0.0.1:6379", cluster=facts)


@pytest.mark.parametrize(("plant", "name", "level", "message", "remedy"), PLANTED_IN_A_CLUSTER)
def test_a_fault_of_a_cluster_is_named_with_its_remedy(
    plant, name, level, message, remedy, tmp_path
):
    findings = examine(plant(take(flags(tmp_path)), tmp_path))
    assert findings[name].level == level
    assert message in findings[name].message
    assert remedy in findings[name].remedy
    assert set(findings) == {check.name for check in CHECKS}
    failed = {other for other, finding in findings.items() if finding.level == "fail"}
    assert failed == ({name} if level == "fail" else set())


@pytest.mark.parametrize(("mode", "level"), [("token", "fail"), ("", "warn"), ("disabled", "warn")])
def test_a_missing_token_matters_to_clusters(mode, level, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    case = take(flags(tmp_path))
    assert examine(with_cluster(case))["tokens"].level == level
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    findings = examine(with_cluster(case))
    assert findings["tokens"].level == ("warn" if mode == "disabled" else "ok")
    assert "0123456789abcdef" not in str(findings)


def test_a_cluster_that_is_not_there_is_a_finding_and_hides_no_other(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, but nobody listens
        start = time.monotonic()
        findings = found(tmp_path, address=address)
    assert time.monotonic() - start < 30
    assert findings["cluster"].level == "fail"
    assert "refused" in findings["cluster"].message
    assert "ray up" in findings["cluster"].remedy
    assert findings["storage"].level == findings["versions"].level == "ok"


def test_a_cluster_that_does_not_answer_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_cluster, "CLUSTER_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        findings = found(tmp_path, address=f"127.0.0.1:{silent.getsockname()[1]}")
    assert "no answer in 3 s" in findings["cluster"].message


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


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--preset", "huge"], "--preset 'huge'"), (["--workers", "0"], "--workers 0")],
)
def test_a_flag_that_cannot_be_used_ends_with_code_2(words, message, capsys):
    assert main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.ray
def test_a_running_cluster_of_two_nodes(monkeypatch, tmp_path):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    options = {"object_store_memory": 100 * 2**20, "num_cpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **options})
    try:
        cluster.add_node(**options)
        words = ["--preset", "smoke", "--storage", str(tmp_path / "runs"), "--workers", "3"]
        done = subprocess.run(
            [sys.executable, "-m", "raysweep", "doctor", *words, "--address", cluster.address],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=os.environ | {"COLUMNS": "300"},
        )
    finally:
        cluster.shutdown()
    assert done.returncode == 1, done.stderr
    lines = {line[7:].split("  ")[0]: line for line in done.stdout.splitlines()}
    assert lines["storage"].startswith("ok")
    assert "here and on 2 nodes" in lines["storage"]
    assert lines["cluster"].startswith("ok")
    assert "2 nodes answer" in lines["cluster"]
    assert lines["clocks"].startswith("ok")
    assert lines["workers"].startswith("fail")
    assert "there are 2 cores" in lines["workers"]
    assert lines["State API"].startswith("fail")
    assert "--include-dashboard=true" in done.stdout
    assert not list((tmp_path / "runs").iterdir())
