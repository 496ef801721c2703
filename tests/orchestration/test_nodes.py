"""Several nodes on one machine: sweeps, training on workers, and single flight across them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raysweep.config import override
from raysweep.distill.manifest import MANIFEST_NAME
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.pipeline import compute
from raysweep.orchestration.compute.worker import Run
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.presets import smoke

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "tests" / "chaos" / "cluster.py"
SECONDS = 400

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def environment(folder):
    mine = {"RAY_TMPDIR": folder, "COLUMNS": "120", "RAYSWEEP_CHECKPOINT_SECONDS": "0"}
    return os.environ | mine | {"PYTHONPATH": str(ROOT), "RAYSWEEP_SCRATCH": f"{folder}/scratch"}


@pytest.fixture(scope="module")
def cluster():
    """The address of a head without cores and two nodes of one core each."""
    with tempfile.TemporaryDirectory(prefix="rn", dir="/tmp") as folder:
        process = subprocess.Popen(
            [sys.executable, str(CLUSTER)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(folder),
            start_new_session=True,
        )
        try:
            address = process.stdout.readline().strip()
            assert address, "the cluster did not start"
            yield address, environment(folder)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def run(job, *flags, env):
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / job), "--preset", "smoke", *flags],
        capture_output=True,
        text=True,
        env=env,
        timeout=SECONDS,
        check=False,
    )


def test_sweep_uses_both_nodes_and_ends_with_the_table_of_one_machine(cluster, tmp_path):
    address, env = cluster
    sweep = ("sweep_resolution.py", "--repeats", "1", "--storage")
    here = run(*sweep, str(tmp_path / "here"), env=env)
    there = run(*sweep, str(tmp_path / "there"), "--address", address, env=env)
    assert there.returncode == 0, there.stdout + there.stderr
    assert "running 2 trials at a time" in there.stdout, "each node has room for one"
    tables = [next(tmp_path.glob(f"{w}/resolution-*/table.csv")) for w in ("here", "there")]
    assert here.returncode == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_training_on_two_nodes_commits_one_stage(cluster, tmp_path):
    address, env = cluster
    flags = ["--workers", "2", "--address", address, "--storage", str(tmp_path / "runs")]
    done = run("pretrain_contrastive.py", *flags, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(p.read_text()) for p in tmp_path.glob("runs/stages/*/*/stage.json")]
    trained = [record for record in records if record["name"] == "pretrain"]
    assert [record["metrics"]["workers"] for record in trained] == [2]


def test_two_nodes_label_like_one_machine_and_train_a_student(cluster, tmp_path):
    address, env = cluster
    experiment = override(smoke(), {"pretrain.method": "rgb", "distilled": True})
    here, out = Storage(str(tmp_path / "here")), tmp_path / "shards"
    dataset = opened(experiment.data, here.uri)
    compute(experiment, Run(StageStore(here), dataset, device_here(), lambda _: None))
    chain = chain_of(experiment, dataset.info.fingerprint)
    on_both = ["--data", "face", "--address", address, "--workers", "2", "--storage"]
    flags = [*on_both, here.uri, "--teacher", f"fit/{chain.fit.key}", "--out", str(out)]
    labelled = run("pseudo_label.py", *flags, env=env)
    assert labelled.returncode == 0, labelled.stdout + labelled.stderr
    ours = here.local(*chain.label.place) / MANIFEST_NAME
    assert json.loads(ours.read_text())["fingerprint"] in labelled.stdout
    assert (out / MANIFEST_NAME).read_bytes() == ours.read_bytes()
    flags = [*on_both, str(tmp_path / "there"), "--shards", str(out)]
    learnt = run("distill.py", *flags, env=env)
    assert learnt.returncode == 0, learnt.stdout + learnt.stderr
    (record,) = tmp_path.glob("there/stages/distill/*/stage.json")
    metrics = json.loads(record.read_text())["metrics"]
    assert (metrics["workers"], metrics["worker_counts"]) == (2, [[0, 2]])


def test_a_stage_in_an_object_store_is_computed_by_one_node_at_a_time(cluster, tmp_path):
    import ray

    address, env = cluster
    bucket, log = tmp_path / "bucket", tmp_path / "computed.txt"
    bucket.mkdir()

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_retries=0)
    def compute(scratch):
        import time

        import pyarrow.fs as pafs
        import ray

        from raysweep.orchestration.store.stages import Stage, StageStore
        from raysweep.orchestration.store.storage import Storage

        class ObjectStore(Storage):
            def __init__(self, uri):
                super().__init__(uri)
                self.fs, self.root = pafs.SubTreeFileSystem(self.root, self.fs), "runs"
                self.is_local = False

            def local(self, *names):
                return Path(scratch, *names)

        store = StageStore(ObjectStore(str(bucket)))
        with store.claim(Stage("fit", {"lr": 1.0})) as workspace:
            if workspace is not None:
                with log.open("a") as stream:
                    stream.write(f"{scratch}\n")
                time.sleep(3)
                workspace.commit({"loss": 0.5})
        record = store.record(Stage("fit", {"lr": 1.0}))
        return ray.get_runtime_context().get_node_id(), record["metrics"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", env["RAY_TMPDIR"])
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        try:
            tasks = [compute.remote(str(tmp_path / f"node{at}")) for at in range(2)]
            found = ray.get(tasks, timeout=120)
        finally:
            ray.shutdown()
    assert len({node for node, _ in found}) == 2, "both ran on the same node"
    assert [metrics for _, metrics in found] == [{"loss": 0.5}] * 2
    assert len(log.read_text().splitlines()) == 1
