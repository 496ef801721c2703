"""cluster.local.yaml against Ray's schema and bootstrap code; the real thing is test_ray_up.py."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.conftest import ROOT

FILE = "cluster.local.yaml"


@pytest.fixture(scope="module")
def cluster(home, read):
    return _bootstrap_config(read(FILE), no_config_cache=True)


def commented_docker() -> dict:
    """The part at the end of the file that a user with Docker takes out of its comment."""
    lines = (ROOT / FILE).read_text().partition("\n#\n# docker:")[2].splitlines()
    return yaml.safe_load("\n".join(["docker:", *(line.removeprefix("# ") for line in lines)]))


def test_every_worker_belongs_to_the_cluster(cluster):
    (kind,) = cluster["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(cluster["provider"]["worker_ips"])


def test_everything_that_jobs_need_is_sent_and_nothing_else(cluster):
    sent = {local for local in cluster["file_mounts"].values() if not local.startswith("~")}
    listed = ["git", "ls-files", "--others", "--cached", "--exclude-standard", "*.py"]
    known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    code = {path.split("/")[0] for path in known.splitlines()} - {"tests", "benchmarks"}
    assert code <= sent
    assert all((ROOT / name).exists() for name in sent)
    assert not sent & {".", "runs", ".venv", ".git"}


def test_dashboard_listens_on_loopback_and_both_sides_use_the_token(cluster):
    (start,) = [line for line in cluster["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert "RAY_AUTH_MODE=disabled" not in (ROOT / FILE).read_text()


def test_path_is_set_once(tmp_path, cluster):
    """The command that writes ~/.bashrc is given again by every `ray up`."""
    (command,) = [line for line in cluster["setup_commands"] if "bashrc" in line]
    for _ in range(2):
        subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path)}, check=True)
    assert (tmp_path / ".bashrc").read_text().count("raysweep-checkout") == 1


def test_docker_in_place_of_an_installation_is_accepted(read):
    config = read(FILE) | commented_docker() | {"file_mounts": {"~/.ray": "~/.ray"}}
    del config["setup_commands"]
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["docker"]["image"] == read("cluster.yaml")["docker"]["image"]


@pytest.mark.parametrize("name", ["cluster.yaml", FILE])
def test_what_a_user_must_change_is_marked(name):
    for line in (ROOT / name).read_text().splitlines():
        if not line.startswith("#") and re.search(r"YOUR_|gpu0\d|ssh_user: me", line):
            assert "# EDIT" in line
