"""cluster.yaml through Ray's own bootstrap and node provider, against an emulated AWS account."""

from __future__ import annotations

import botocore.exceptions
import pytest
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WORKERS = ("gpu_spot", "gpu_on_demand")
EVERYONE = "0.0.0.0/0"


@pytest.fixture(scope="module")
def cluster(aws, read):
    """The file, with all that Ray fills in from the account."""
    return _bootstrap_config(read("cluster.yaml"), no_config_cache=True)


@pytest.fixture
def provider(cluster):
    return AWSNodeProvider(cluster["provider"], cluster["cluster_name"])


@pytest.fixture
def launch(aws, cluster, provider):
    """Start a machine as Ray does; return what AWS says of it."""

    def start(kind):
        node_config = cluster["available_node_types"][kind]["node_config"]
        tags = {"ray-node-kind": "worker", "ray-user-node-type": kind}
        (machine,) = provider.create_node(node_config, tags, 1)
        (reservation,) = aws.describe_instances(InstanceIds=[machine])["Reservations"]
        return reservation["Instances"][0]

    return start


def tags_of(resource):
    return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}


def test_workers_are_gpu_machines_one_kind_on_spot_and_one_on_demand(launch):
    spot, on_demand = launch("gpu_spot"), launch("gpu_on_demand")
    assert spot["InstanceLifecycle"] == "spot"
    assert "InstanceLifecycle" not in on_demand
    assert spot["InstanceType"] == on_demand["InstanceType"] == "g6.2xlarge"


def test_head_is_a_cpu_machine_on_demand(launch, cluster):
    head = launch("head")
    assert "InstanceLifecycle" not in head
    resources = cluster["available_node_types"]["head"]["resources"]
    assert resources["CPU"] == 4
    assert "GPU" not in resources


def test_the_autoscaler_knows_what_the_machines_have(cluster):
    for kind in WORKERS:
        resources = cluster["available_node_types"][kind]["resources"]
        assert resources["GPU"] == 1
        assert resources["CPU"] == 8


def test_no_gpu_is_paid_for_while_nobody_works(cluster):
    for kind in WORKERS:
        assert cluster["available_node_types"][kind]["min_workers"] == 0
    assert cluster["idle_timeout_minutes"] <= 15
    assert cluster["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("kind", ["head", *WORKERS])
def test_machines_and_discs_are_tagged_and_discs_end_with_them(aws, launch, kind):
    machine = launch(kind)
    assert tags_of(machine)["project"] == "raysweep"
    assert tags_of(machine)["ray-cluster-name"] == "raysweep"
    (disc,) = machine["BlockDeviceMappings"]
    assert disc["Ebs"]["DeleteOnTermination"]
    (volume,) = aws.describe_volumes(VolumeIds=[disc["Ebs"]["VolumeId"]])["Volumes"]
    assert tags_of(volume)["project"] == "raysweep"
    assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (150, "gp3", True)


def test_workers_may_use_the_bucket_but_not_start_machines(launch, cluster):
    assert launch("head")["IamInstanceProfile"]["Arn"].endswith("/raysweep-head")
    for kind in WORKERS:
        assert launch(kind)["IamInstanceProfile"]["Arn"].endswith("/raysweep-worker")
    assert "IamInstanceProfile" not in cluster["head_node"], "Ray added its all-powerful role"


def test_credentials_of_a_machine_need_a_session_token(cluster):
    for kind in cluster["available_node_types"].values():
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_only_ssh_is_open_to_the_world(aws, launch):
    machines = [launch(kind) for kind in ("head", *WORKERS)]
    groups = {group["GroupId"] for machine in machines for group in machine["SecurityGroups"]}
    (found,) = aws.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    outside = [rule for rule in found["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in outside] == [(22, 22)]
    within = [rule for rule in found["IpPermissions"] if rule not in outside]
    assert [pair["GroupId"] for rule in within for pair in rule["UserIdGroupPairs"]] == list(groups)


def test_dashboard_listens_on_loopback_only(cluster):
    (start,) = [line for line in cluster["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start


def test_workers_may_start_in_three_zones(aws, cluster):
    for kind in WORKERS:
        subnets = cluster["available_node_types"][kind]["node_config"]["SubnetIds"]
        found = aws.describe_subnets(SubnetIds=subnets)["Subnets"]
        assert len({subnet["AvailabilityZone"] for subnet in found}) == 3


def test_zone_without_spot_capacity_is_skipped(provider, launch, monkeypatch):
    tried = []
    create = provider.ec2_fail_fast.create_instances

    def refuse_the_first(**request):
        tried.append(request["SubnetId"])
        if len(tried) == 1:
            error = {"Code": "InsufficientInstanceCapacity", "Message": "no spot capacity"}
            raise botocore.exceptions.ClientError({"Error": error}, "RunInstances")
        return create(**request)

    monkeypatch.setattr(provider.ec2_fail_fast, "create_instances", refuse_the_first)
    assert launch("gpu_spot")["SubnetId"] == tried[1] != tried[0]


def wanted(cluster, gpus, **availability):
    """What the autoscaler starts for trials of one GPU each."""
    settings = AutoscalingConfig(cluster, skip_content_hash=True)
    trials = [ResourceRequestUtil.make({"CPU": 1.0, "GPU": 1.0}) for _ in range(gpus)]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=settings.get_node_type_configs(),
        max_num_nodes=settings.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(trials),
        recoverable_resource_availabilities=availability,
    )
    reply = ResourceDemandScheduler().schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_trials_start_spot_machines(cluster):
    assert wanted(cluster, 4) == {"gpu_spot": 4}


def test_on_demand_machines_step_in_while_spot_is_refused(cluster):
    assert wanted(cluster, 2, gpu_spot=0.0) == {"gpu_on_demand": 2}


def test_never_more_machines_than_allowed(cluster):
    # Ray counts the head, which is not up here, among the machines
    assert sum(wanted(cluster, 100).values()) == cluster["max_workers"] + 1
    assert wanted(cluster, 100)["gpu_spot"] == 8
