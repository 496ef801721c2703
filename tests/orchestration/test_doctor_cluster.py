"""The doctor names what is wrong with a cluster, on which node, and what to do about it."""

from __future__ import annotations

import dataclasses
import socket
import time

import pytest

from raysweep.__main__ import main
from raysweep.orchestration.doctor import cluster as doctor_cluster
from raysweep.orchestration.doctor.case import take
from raysweep.orchestration.doctor.cluster import ClusterFacts, NodeType
from raysweep.orchestration.doctor.examination import CHECKS, examine
from raysweep.orchestration.doctor.facts import marked, touch
from raysweep.orchestration.on_ray.elastic import Workers
from raysweep.orchestration.store.storage import Storage
from tests.orchestration.doctor_cases import flags, found

pytestmark = pytest.mark.usefixtures("plain_user")


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
    return dataclasses.replace(with_cluster(case, types=types), workers=Workers(20, 20))


def more_workers_than_types(case, tmp_path):
    return dataclasses.replace(workers_to_be_started(case, tmp_path), workers=Workers(33, 40))


def no_dashboard(case, tmp_path):
    return dataclasses.replace(
        with_cluster(case, state_problem="no dashboard"), workers=Workers(1, 2)
    )


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


@pytest.mark.ray
def test_a_running_cluster_of_two_nodes(monkeypatch, tmp_path, capsys):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("COLUMNS", "300")
    options = {"object_store_memory": 100 * 2**20, "num_cpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **options})
    try:
        cluster.add_node(**options)
        words = ["--preset", "smoke", "--storage", str(tmp_path / "runs"), "--workers", "3"]
        code = main(["doctor", *words, "--address", cluster.address])
    finally:
        cluster.shutdown()
    out = capsys.readouterr().out
    assert code == 1, out
    lines = {line[7:].split("  ")[0]: line for line in out.splitlines()}
    assert lines["storage"].startswith("ok")
    assert "here and on 2 nodes" in lines["storage"]
    assert lines["cluster"].startswith("ok")
    assert "2 nodes answer" in lines["cluster"]
    assert lines["clocks"].startswith("ok")
    assert lines["workers"].startswith("fail")
    assert "there are 2 cores" in lines["workers"]
    assert lines["State API"].startswith("fail")
    assert "--include-dashboard=true" in out
    assert not list((tmp_path / "runs").iterdir())
