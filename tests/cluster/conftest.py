"""Cluster files as a user has them, and AWS emulated in this process."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start a cluster only for those who ask: it takes minutes and both cores."""
    if "cluster" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.skip(reason="starts a cluster: run with -m cluster"))


@pytest.fixture(scope="session")
def read():
    """Read a YAML file of the repository."""
    return lambda name: yaml.safe_load((ROOT / name).read_text())


@pytest.fixture(scope="session")
def guide():
    return (ROOT / "docs" / "cluster.md").read_text()


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A user's home with a token; Ray's keys and caches go there too."""
    place = tmp_path_factory.mktemp("home")
    (place / ".ray").mkdir()
    (place / ".ray" / "auth_token").write_text("0" * 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place))
        yield place


@pytest.fixture(scope="module")
def aws(home, guide):
    """An emulated account with the roles of docs/cluster.md; nothing leaves this process."""
    moto = pytest.importorskip("moto", reason="moto is not installed: pip install '.[dev]'")
    import boto3
    from ray.autoscaler._private.aws import config, utils

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-west-2")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        caches = (utils.resource_cache, utils.client_cache, config._get_subnets_or_die)
        with moto.mock_aws():
            for cache in caches:
                cache.cache_clear()
            make_roles(boto3.client("iam"), guide)
            yield boto3.client("ec2")
        for cache in caches:
            cache.cache_clear()


def policies(guide: str) -> dict[str, dict]:
    """The policy documents of the guide, by file name."""
    found = re.findall(r"cat > (\S+\.json) <<'END'\n(.*?)\nEND\n", guide, flags=re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def make_roles(iam, guide: str) -> None:
    documents = {name: json.dumps(text) for name, text in policies(guide).items()}
    for role in ("raysweep-head", "raysweep-worker"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=documents["trust.json"])
        iam.put_role_policy(
            RoleName=role, PolicyName=role, PolicyDocument=documents[f"{role}.json"]
        )
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
