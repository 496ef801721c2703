"""A stage is computed once, by one process at a time, and appears whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pyarrow.fs as pafs
import pytest
import torch

from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage

STAGE = Stage("fit", {"lr": 0.1, "steps": 3}, {"data": "abc"})


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage(str(tmp_path / "runs")))


@pytest.mark.parametrize(
    "other",
    [
        Stage("pretrain", {"lr": 0.1, "steps": 3}, {"data": "abc"}),
        Stage("fit", {"lr": 0.2, "steps": 3}, {"data": "abc"}),
        Stage("fit", {"lr": 0.1, "steps": 3}, {"data": "xyz"}),
        Stage("fit", {"lr": 0.1, "steps": 3}, {"data": "abc"}, version=2),
    ],
)
def test_key_depends_on_everything_that_determines_the_result(other):
    assert other.key != STAGE.key


def test_key_does_not_depend_on_the_order_of_settings():
    assert Stage("fit", {"steps": 3, "lr": 0.1}, {"data": "abc"}).key == STAGE.key


def test_finished_stage_is_not_offered_again(store):
    with store.claim(STAGE) as workspace:
        (workspace.path / "weights").write_bytes(b"w")
        workspace.commit({"loss": 0.5})
    assert store.done(STAGE)
    assert store.record(STAGE)["metrics"] == {"loss": 0.5}
    assert (store.directory(STAGE) / "weights").read_bytes() == b"w"
    assert store.finished("fit") == [STAGE.key]
    with store.claim(STAGE) as workspace:
        assert workspace is None


def test_record_states_lineage_and_cost(store):
    with store.claim(STAGE) as workspace:
        workspace.commit({})
    record = store.record(STAGE)
    assert record["inputs"] == {"data": "abc"}
    assert record["config"] == {"lr": 0.1, "steps": 3}
    assert record["cost"]["seconds"] >= 0
    assert record["git_revision"]


def test_failed_stage_keeps_its_checkpoint_and_is_not_done(store):
    def compute():
        with store.claim(STAGE) as workspace:
            workspace.save_checkpoint({"step": 7, "weights": torch.arange(3)})
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        compute()
    assert not store.done(STAGE)
    assert store.started(STAGE)
    with store.claim(STAGE) as workspace:
        state = workspace.load_checkpoint()
        workspace.commit({})
    assert state["step"] == 7
    assert torch.equal(state["weights"], torch.arange(3))
    assert not (store.directory(STAGE) / "checkpoint.pt").exists()


def test_time_before_a_resume_counts(store):
    with store.claim(STAGE) as workspace:
        workspace.stopwatch.add(100.0)
        workspace.save_checkpoint({})
    with store.claim(STAGE) as workspace:
        workspace.load_checkpoint()
        workspace.commit({})
    assert 100 <= store.record(STAGE)["cost"]["seconds"] < 110


def test_two_threads_compute_a_stage_once(store):
    computed, waited = [], []

    def work():
        with store.claim(STAGE, waiting=lambda: waited.append(1)) as workspace:
            if workspace is not None:
                computed.append(1)
                time.sleep(1.5)
                workspace.commit({})

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert waited


def test_a_killed_process_leaves_no_lock(store, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from raysweep.orchestration.store.stages import Stage, StageStore\n"
        "from raysweep.orchestration.store.storage import Storage\n"
        f"store = StageStore(Storage({str(tmp_path / 'runs')!r}))\n"
        "stage = Stage('fit', {'lr': 0.1, 'steps': 3}, {'data': 'abc'})\n"
        "with store.claim(stage) as workspace:\n"
        "    workspace.save_checkpoint({'step': 1})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with store.claim(STAGE) as workspace:
        assert workspace.load_checkpoint() == {"step": 1}


class _ObjectStore(Storage):
    """A directory that is treated like an object store: no renames, DONE last."""

    def __init__(self, uri, scratch):
        super().__init__(uri)
        self.fs, self.root = pafs.SubTreeFileSystem(self.root, self.fs), "bucket/prefix"
        self.is_local, self._scratch = False, scratch

    def local(self, *names):
        return self._scratch.joinpath(*names)


class Free:
    """The lock of a test that runs alone."""

    def acquire(self, timeout):
        pass

    def release(self):
        pass


def test_object_store_round_trip(tmp_path, monkeypatch):
    (tmp_path / "remote").mkdir()
    store = StageStore(_ObjectStore(str(tmp_path / "remote"), tmp_path / "a"))
    monkeypatch.setattr(store, "_lock", lambda stage: Free())
    with store.claim(STAGE) as workspace:
        workspace.save_checkpoint({"step": 2})
    # another machine: nothing in its scratch directory yet
    elsewhere = StageStore(_ObjectStore(str(tmp_path / "remote"), tmp_path / "b"))
    monkeypatch.setattr(elsewhere, "_lock", lambda stage: Free())
    with elsewhere.claim(STAGE) as workspace:
        assert workspace.load_checkpoint() == {"step": 2}
        (workspace.path / "weights").write_bytes(b"w")
        workspace.commit({"loss": 1.0})
    assert store.done(STAGE)
    assert (store.directory(STAGE) / "weights").read_bytes() == b"w"
    assert not store.started(STAGE)
