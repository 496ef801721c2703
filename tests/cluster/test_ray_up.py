"""cluster.local.yaml for real: `ray up`, a sweep, MLflow through a tunnel, `ray down`.

Two machines and a laptop, made of namespaces on this one; run with ``-m cluster``. The commands are
those of docs/cluster.md, in its order.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.lab import ROOT, Lab, missing

JOB = "jobs/sweep_resolution.py"
FLAGS = ("--preset", "smoke", "--repeats", "1", "--address", "auto")
STORE = ("--storage", "/mnt/shared/runs")
FILE = "/mnt/cluster.yaml"
DASHBOARD, MLFLOW = "http://127.0.0.1:8265", "http://127.0.0.1:5000"
SETTINGS = """
MLFLOW_BACKEND_STORE_URI=sqlite:////mnt/shared/mlflow.db
MLFLOW_ARTIFACTS_DESTINATION=/mnt/shared/mlflow
"""
SERVER = (
    "setsid nohup sh -c 'set -a; . ~/mlflow.env;"
    " mlflow server --workers 1 --host 127.0.0.1 --port 5000' > ~/mlflow.log 2>&1 < /dev/null &"
)
STATUS = """
import json, sys, requests
try:
    print(requests.get(sys.argv[1], headers=json.loads(sys.argv[2]), timeout=10).status_code)
except requests.ConnectionError:
    print(0)
"""
RUNS = f"""
import mlflow
client = mlflow.MlflowClient("{MLFLOW}")
(found,) = [e for e in client.search_experiments() if e.name.startswith("raysweep/resolution")]
runs = client.search_runs([found.experiment_id], max_results=1000)
levels = {{}}
for run in runs:
    assert run.info.status == "FINISHED"
    levels.setdefault(run.data.tags["raysweep.level"], []).append(run)
(parent,) = levels["sweep"]
print("configurations", sum("best/miou" in run.data.metrics for run in levels["configuration"]))
print([file.path for file in client.list_artifacts(parent.info.run_id)])
"""

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.timeout(360)]


@pytest.fixture(scope="module")
def lab():
    if why := missing():
        pytest.skip(f"no cluster of namespaces: {why}")
    place, made = Path(tempfile.mkdtemp(prefix="raysweep-lab-")), None
    try:
        made = Lab(place, "gpu01", "gpu02")
        config = yaml.safe_load((ROOT / "cluster.local.yaml").read_text())
        config["provider"] |= {"head_ip": "gpu01", "worker_ips": ["gpu02"]}
        config["auth"]["ssh_user"] = "root"
        (place / "cluster.yaml").write_text(yaml.safe_dump(config))
        (place / "shared").mkdir()
        yield made
    finally:
        if made is not None:
            made.end()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def laptop(lab):
    return lab.machines[0]


@pytest.fixture(scope="module")
def cluster(lab, laptop):
    """A cluster that is up, with both machines in it."""
    laptop.run("ray", "up", FILE, "--yes", timeout=180)
    wait_for(lambda: " 2 local.cluster.node" in ray_status(laptop), "two machines", 120)
    return lab


@pytest.fixture(scope="module")
def tunnels(cluster, laptop):
    """Dashboard and MLflow of the head, on the laptop's own loopback."""
    (laptop.home / "mlflow.env").write_text(SETTINGS)
    laptop.run("ray", "rsync-up", FILE, "/mnt/laptop/home/mlflow.env", "~/mlflow.env")
    on_head(laptop, SERVER)
    words = laptop.command("ray", "attach", FILE, "-p", "8265", "-p", "5000")
    shell = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: status(laptop, DASHBOARD), "the dashboard", 60)
        wait_for(lambda: status(laptop, f"{MLFLOW}/health"), "MLflow", 120)
        yield
    finally:
        shell.kill()
        shell.wait(timeout=10)


@pytest.fixture(scope="module")
def sweep(tunnels, laptop):
    """The output of the smoke sweep, submitted from the laptop."""
    done = laptop.run(
        *("ray", "job", "submit", "--address", DASHBOARD, "--working-dir", "."),
        *("--runtime-env-json", f'{{"env_vars": {{"MLFLOW_TRACKING_URI": "{MLFLOW}"}}}}'),
        *("--", "python", JOB, *FLAGS, *STORE),
        timeout=300,
        RAY_AUTH_MODE="token",
    )
    return done.stdout


def on_head(laptop, command: str, *, check: bool = True) -> str:
    return laptop.run("ray", "exec", FILE, command, check=check, timeout=120).stdout


def ray_status(laptop) -> str:
    return on_head(laptop, "ray status", check=False)


def status(laptop, url: str, headers: str = "{}") -> int:
    """The HTTP status of a page seen from the laptop, 0 if nobody listens."""
    return int(laptop.run("python", "-c", STATUS, url, headers).stdout)


def table(output: str) -> list[str]:
    """The rows of the table that ends a job's output, without colours."""
    end = re.sub(r"\x1b\[[0-9;]*m", "", output).rpartition("mIoU on the test split")[2]
    return [line.strip() for line in end.splitlines() if "+-" in line]


def wait_for(condition, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        time.sleep(1)


def test_dashboard_and_mlflow_are_reached_through_the_tunnel_only(tunnels, laptop):
    assert status(laptop, "http://gpu01:8265") == 0
    assert status(laptop, "http://gpu01:5000") == 0


def test_nobody_is_answered_without_the_token(tunnels, laptop):
    assert status(laptop, f"{DASHBOARD}/api/version") == 401
    token = (laptop.home / ".ray" / "auth_token").read_text()
    bearer = f'{{"Authorization": "Bearer {token}"}}'
    assert status(laptop, f"{DASHBOARD}/api/version", bearer) == 200
    assert "AuthenticationError" in on_head(
        laptop, "RAY_AUTH_MODE=disabled ray status", check=False
    )


def test_sweep_ends_with_its_table_on_shared_storage(sweep, lab):
    assert len(table(sweep)) >= 5, sweep
    assert list(lab.place.glob("shared/runs/resolution-*/table.csv"))


def test_both_machines_took_part(sweep, lab):
    logs = "grep -l actor_name:.*_trial /tmp/ray/session_latest/logs/worker-*.out"
    for machine in lab.machines[1:]:
        assert machine.run("bash", "-c", logs).stdout


def test_runs_and_files_are_in_mlflow_on_the_laptop(sweep, laptop):
    found = laptop.run("python", "-c", RUNS, timeout=120).stdout
    assert "configurations 15" in found
    assert "table.csv" in found
    assert "report.html" in found


def test_the_token_is_in_no_log(sweep, lab, laptop):
    token = (laptop.home / ".ray" / "auth_token").read_text()
    for machine in lab.machines[1:]:
        found = machine.run("grep", "-rlF", token, "/tmp/ray", "/mnt/shared", check=False).stdout
        assert found == ""


def test_submitted_in_another_way_it_runs_nothing_again(sweep, laptop):
    before = stages(laptop)
    again = laptop.run("ray", "submit", FILE, JOB, "--", *FLAGS, *STORE, timeout=180).stdout
    assert table(again) == table(sweep)
    assert stages(laptop) == before


def stages(laptop) -> str:
    """What is finished, and when it was."""
    found = laptop.run("find", "/mnt/shared/runs/stages", "-name", "DONE", "-printf", "%p %T@\n")
    return found.stdout


def test_the_table_comes_home(sweep, lab, laptop):
    (written,) = lab.place.glob("shared/runs/resolution-*/table.csv")
    source = f"/mnt/{written.relative_to(lab.place)}"
    laptop.run("ray", "rsync-down", FILE, source, "/mnt/laptop/home/table.csv")
    assert (laptop.home / "table.csv").read_bytes() == written.read_bytes()


def test_down_ends_ray_on_every_machine(cluster, laptop):
    """Last: workers leave when they have missed the head for a minute."""
    head, worker = cluster.machines[1:]
    laptop.run("ray", "down", FILE, "--yes", timeout=120)
    assert not head.processes("raylet|gcs_server")
    wait_for(lambda: not worker.processes("raylet"), "the worker", 150)
