"""The KubeRay files: one image, one of our jobs, GPUs that can be given, nothing public."""

from __future__ import annotations

import shlex

import pytest
from packaging.requirements import Requirement

from tests.cluster.conftest import ROOT

FILES = ("kubernetes/raycluster.yaml", "kubernetes/rayjob.yaml")


def spec_of(document: dict) -> dict:
    return document["spec"].get("rayClusterSpec", document["spec"])


@pytest.fixture(params=FILES)
def spec(request, read):
    return spec_of(read(request.param))


def pods(spec):
    return [
        group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]


def test_both_files_describe_the_same_cluster(read):
    first, second = (spec_of(read(name)) for name in FILES)
    second["headGroupSpec"]["template"]["spec"]["containers"][0].pop("env")  # the job's MLflow
    assert first == second


def test_all_use_the_one_image_with_its_version_of_ray(spec, read):
    images = {container["image"] for pod in pods(spec) for container in pod["containers"]}
    assert images == {read("cluster.yaml")["docker"]["image"]}
    pins = map(Requirement, (ROOT / "constraints.txt").read_text().splitlines()[1:])
    (ray,) = [pin for pin in pins if pin.name == "ray"]
    assert str(ray.specifier) == f"=={spec['rayVersion']}"


def test_job_is_one_of_ours_with_flags_that_it_has(read):
    from raysweep.orchestration import cli

    program, script, *flags = shlex.split(read("kubernetes/rayjob.yaml")["spec"]["entrypoint"])
    place, _, name = script.rpartition("/jobs/")
    assert program == "python"
    assert f"WORKDIR {place}\n" in (ROOT / "Dockerfile").read_text()
    assert (ROOT / "jobs" / name).exists()
    options = cli.parser("", sweep=True).parse_args(flags)
    assert options.address == "auto"
    assert options.gpus, "else the sweep would run on the head while no GPU is up"
    assert options.storage.startswith("s3://"), "every node must reach the results"


def test_no_idle_gpu_is_paid_for(spec):
    assert spec["enableInTreeAutoscaling"]
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


def test_only_workers_have_gpus(spec):
    head, *workers = pods(spec)
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert workers
    for pod in workers:
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_requests_equal_limits_and_shared_memory_fits(spec):
    """Ray sizes itself by the limits; a pod that was promised less is killed under load."""
    for pod in pods(spec):
        resources = pod["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {
            "/dev/shm"
        }


def test_nothing_is_public_and_nobody_is_root(spec):
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in spec["headGroupSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    for pod in pods(spec):
        assert pod["securityContext"]["runAsNonRoot"]
        assert "hostNetwork" not in pod


def test_a_job_ends_and_takes_its_cluster_with_it(read):
    job = read("kubernetes/rayjob.yaml")["spec"]
    assert job["shutdownAfterJobFinishes"]
    assert job["activeDeadlineSeconds"] > 0
    assert job["backoffLimit"] > 0
