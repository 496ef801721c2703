"""Trainings on workers: nodes that go and come, failures, and the trunks of a sweep."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from raysweep.config import override
from raysweep.orchestration.compute.datasets import opened
from raysweep.orchestration.compute.worker import Progress
from raysweep.orchestration.on_ray.elastic import Workers
from raysweep.orchestration.planning.plan import make_trial
from raysweep.orchestration.store import checkpoints
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.presets import smoke
from search_spaces import matching

ROOT = Path(__file__).parents[2]
SECONDS = 300


@pytest.fixture
def two_cores():
    import ray

    from raysweep.orchestration.on_ray.tune import start_ray

    start_ray(None)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_workers_train_generator_and_trunk_before_the_trials(two_cores, tmp_path):
    from raysweep.orchestration.sweeps.sweep import _pretrain_on_workers

    changes = {"pretrain.gan.kimg": 0.16, "trunk.steps": 4, "trunk.bn_groups": 1}
    base = override(matching.BASE["smoke"](), changes)
    info = opened(base.data, str(tmp_path)).info
    cell = next(cell for cell in matching.cells("smoke") if cell.changes.get("trunk", 1))
    trial = make_trial(matching, base, cell, repeat=0, fingerprint=info.fingerprint)
    store = StageStore(Storage(str(tmp_path)))
    sweep = SimpleNamespace(store=store, workers=Workers(2, 2), failures={})
    _pretrain_on_workers(sweep, [trial], Console(quiet=True))
    for stage in (trial.chain.pretrain, trial.chain.trunk):
        assert store.record(stage)["metrics"]["worker_counts"] == [[0, 2]]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_failures_do_not_end_a_training_that_gets_further(two_cores, tmp_path):
    """Ray gives up after three; a day on spot machines has more."""
    from raysweep.orchestration.on_ray.train import train_on_workers

    tries = tmp_path / "tries.txt"

    def training(_experiment, member):
        with tries.open("a") as stream:
            stream.write("x")
        done = len(tries.read_text())
        member.run_with.report(Progress("pretrain", done, 5, {}))
        time.sleep(2.0)  # the driver looks once a second
        if done < 5:
            raise ConnectionError("a machine has gone")
        return {"step": done}

    stage, storage = Stage("pretrain", {}), Storage(str(tmp_path))
    train_on_workers(training, smoke(), stage, storage=storage, counts=(1,), report=lambda _: None)
    assert StageStore(storage).record(stage)["metrics"]["step"] == 5


class Nodes:
    """A head without cores, and nodes of one core each that come and go."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.address = self.cluster.address

    def add(self):
        return self.cluster.add_node(num_cpus=1)


@pytest.fixture
def nodes(request, monkeypatch):
    """Nodes whose workers save after every window, or every so many seconds (the parameter)."""
    with tempfile.TemporaryDirectory(prefix="re", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAYSWEEP_SCRATCH", f"{folder}/scratch")
        monkeypatch.setenv("RAYSWEEP_CHECKPOINT_SECONDS", getattr(request, "param", "0"))
        monkeypatch.setenv("RAYSWEEP_RESIZE_SECONDS", "3")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        found = Nodes()
        try:
            yield found
        finally:
            found.cluster.shutdown()


class Training:
    """A pretraining on one or two workers, as its own process."""

    def __init__(self, nodes, storage, *, steps):
        self.storage, self.output = storage, storage / "output.txt"
        words = [
            sys.executable,
            str(ROOT / "jobs" / "pretrain_contrastive.py"),
            "--preset",
            "smoke",
        ]
        words += ["--workers", "1-2", "--address", nodes.address, "--storage", str(storage)]
        words += ["--set", f"pretrain.steps={steps}", "--set", "pretrain.bn_groups=1"]
        with self.output.open("w") as stream:
            self.process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(30)

    def wait_until(self, so):
        """Wait until ``so`` returns something true; return it."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if found := so():
                return found
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.2)
        pytest.fail(f"not within {SECONDS} s: saved {self.saved()}\n{self.output.read_text()}")

    def saved(self):
        """Return step and history of the checkpoint; none yet: step 0."""
        for place in self.storage.glob(f"work/pretrain-*/{checkpoints.NEWEST}"):
            with contextlib.suppress(FileNotFoundError):
                state, _ = checkpoints.load(place.parent, place.name)
                return state["step"], state["worker_counts"]
        return 0, []

    def step_of(self, workers, *, beyond):
        """Wait until the checkpoint is of so many workers and a later step; return the step."""

        def found():
            step, counts = self.saved()
            return step if step > beyond and counts[-1][1] == workers else 0

        return self.wait_until(found)

    def record(self):
        """Wait for the end; return the metrics of the one stage, and its curve."""
        assert self.process.wait(SECONDS) == 0, self.output.read_text()
        (place,) = self.storage.glob("stages/pretrain/*/stage.json")
        curve = json.loads((place.parent / "curve.json").read_text())
        return json.loads(place.read_text())["metrics"], curve


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_training_goes_on_with_fewer_nodes_and_grows_when_they_come(nodes, tmp_path):
    first, _ = nodes.add(), nodes.add()
    with Training(nodes, tmp_path, steps=3000) as training:
        lost = training.step_of(2, beyond=20)
        nodes.cluster.remove_node(first, allow_graceful=False)
        alone = training.step_of(1, beyond=lost)
        nodes.add()
        training.step_of(2, beyond=alone)
        metrics, curve = training.record()
        said = training.output.read_text()
    (start, two), (fewer_from, one), (more_from, again) = metrics["worker_counts"]
    assert (start, two, one, again) == (0, 2, 1, 2)
    assert lost <= fewer_from < more_from < 3000
    assert metrics["workers"] == 2
    assert f"2 from step 0, 1 from step {fewer_from}, 2 from step {more_from}" in said
    assert [row["step"] for row in curve] == list(range(10, 3001, 10)), "steps lost or repeated"
    left = [place for place in tmp_path.glob("work/*") if place.is_dir()]
    assert not left, "something is left of the training"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nodes", ["3600"], indirect=True)
def test_workers_save_before_their_number_grows(nodes, tmp_path):
    """There is no other checkpoint: without this one the training would begin again with two."""
    nodes.add()
    with Training(nodes, tmp_path, steps=1500) as training:
        training.wait_until(lambda: "workers 1" in training.output.read_text())
        assert training.saved() == (0, [])
        nodes.add()
        metrics, _ = training.record()
    (start, one), (grown_at, two) = metrics["worker_counts"]
    assert (start, one, two) == (0, 1, 2)
    assert 0 < grown_at < 1500
