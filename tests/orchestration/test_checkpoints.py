"""The newest checkpoint, and the one before in case that is damaged."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysweep.orchestration import terminal
from raysweep.orchestration.store import checkpoints
from raysweep.orchestration.store.checkpoints import BEFORE, NEWEST
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage

STAGE = Stage("fit", {"lr": 0.1})


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage(str(tmp_path)))


def damage(path):
    path.write_bytes(path.read_bytes()[:-10])


def saved(workspace, *steps):
    for step in steps:
        workspace.save_checkpoint({"step": step})
    return workspace


def test_the_one_before_takes_the_place_of_a_damaged_one(store):
    told = []
    with store.claim(STAGE) as workspace, terminal.passing_on(told.append):
        saved(workspace, 10, 20, 30)
        damage(workspace.path / NEWEST)
        assert workspace.load_checkpoint() == {"step": 20}
        assert "goes on from the one before" in told[0]
        assert saved(workspace, 25).load_checkpoint() == {"step": 25}
        damage(workspace.path / NEWEST)
        assert workspace.load_checkpoint() == {"step": 20}
        damage(workspace.path / BEFORE)
        assert workspace.load_checkpoint() is None
        assert "the stage starts again" in told[-1]


def test_no_more_than_two_are_kept_and_none_of_a_finished_stage(store):
    with store.claim(STAGE) as workspace:
        saved(workspace, *range(5))
        assert sorted(p.name for p in workspace.path.iterdir()) == [BEFORE, NEWEST]
        workspace.commit({})
    assert sorted(p.name for p in store.directory(STAGE).iterdir()) == ["DONE", "stage.json"]


def test_one_is_kept_where_the_user_wants_so(store, monkeypatch):
    monkeypatch.setattr(checkpoints, "KEPT", 1)
    with store.claim(STAGE) as workspace:
        saved(workspace, 1, 2)
        assert [path.name for path in workspace.path.iterdir()] == [NEWEST]


def test_environment_says_how_many():
    code = "from raysweep.orchestration.store import checkpoints; print(checkpoints.KEPT)"
    environment = os.environ | {"RAYSWEEP_CHECKPOINTS_KEPT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout.split() == [b"1"]


def test_file_system_without_hard_links_is_served(store, monkeypatch):
    def refused(self, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    with store.claim(STAGE) as workspace:
        saved(workspace, 1, 2)
        damage(workspace.path / NEWEST)
        assert workspace.load_checkpoint() == {"step": 1}


def test_a_stage_counts_as_started_with_either(store):
    with store.claim(STAGE) as workspace:
        saved(workspace, 1, 2)
        (workspace.path / NEWEST).unlink()
        assert store.started(STAGE)
        assert workspace.load_checkpoint() == {"step": 1}
