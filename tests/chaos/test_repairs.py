"""What is damaged, frozen, full or told to end: named, set aside, done again; never a hang."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from raysweep.data.builtin import BuiltinConfig, builtin_path, materialise
from raysweep.data.dataset import open_dataset
from raysweep.experiment import DataConfig
from raysweep.orchestration import terminal
from raysweep.orchestration.compute.mending import mend
from raysweep.orchestration.compute.notice import GRACE_SECONDS
from raysweep.orchestration.store import checkpoints, pulse
from raysweep.orchestration.store.pulse import StuckError
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage, is_full, write_atomically

STAGE = Stage("fit", {"lr": 0.1})
TINY = BuiltinConfig(px=32, unlabelled=2, train=2, val=2, test=4)


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage(str(tmp_path / "runs")))


def cut(data):
    return data[: len(data) // 2]


def turned(data):
    at = len(data) // 4
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, turned, lambda data: b""])
def test_damaged_checkpoint_is_named_and_the_stage_starts_again(store, damage):
    told = []
    with store.claim(STAGE) as workspace, terminal.passing_on(told.append):
        workspace.save_checkpoint({"step": 7, "weights": torch.randn(1000)})
        place = workspace.path / "checkpoint.pt"
        place.write_bytes(damage(place.read_bytes()))
        assert workspace.load_checkpoint() is None
        aside = workspace.path.with_name(f"{workspace.path.name}.damaged.pt")
        assert str(STAGE) in told[0]
        assert str(aside) in told[0]
        workspace.save_checkpoint({"step": 9})
        assert workspace.load_checkpoint() == {"step": 9}
        workspace.commit({})
    assert aside.exists()
    assert not list(store.directory(STAGE).glob("*.pt"))


@pytest.mark.parametrize("damage", [cut, turned])
def test_damaged_rendering_is_rendered_again(tmp_path, damage):
    storage, told = Storage(str(tmp_path)), []
    data, cache = DataConfig(px=32, shots=1, builtin=TINY), storage.local("data")
    expected = open_dataset("face", cache=cache, builtin=TINY).images("test", px=32)
    victim = next(builtin_path(TINY, "face", cache=cache).glob("test-*.parquet"))
    victim.write_bytes(damage(victim.read_bytes()))
    with terminal.passing_on(told.append):
        mend(data, storage)
        assert str(victim) in told[0]
        materialise(TINY, "face", cache=cache)
        mend(data, storage)
        assert len(told) == 1, "the new one is whole"
    assert torch.equal(
        open_dataset("face", cache=cache, builtin=TINY).images("test", px=32), expected
    )


def test_wait_for_a_frozen_process_ends_and_says_which(store, monkeypatch):
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(pulse, "SILENCE_SECONDS", 2.0)
    code = (
        "import sys, time\n"
        "from raysweep.orchestration.store import pulse\n"
        "from raysweep.orchestration.store.stages import Stage, StageStore\n"
        "from raysweep.orchestration.store.storage import Storage\n"
        "pulse.BEAT_SECONDS = 0.1\n"
        f"store = StageStore(Storage({store.storage.uri!r}))\n"
        "with store.claim(Stage('fit', {'lr': 0.1})):\n"
        "    time.sleep(0.5)\n"
        "    print('claimed', flush=True)\n"
        "    time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "claimed\n"
        waits = []

        def waiting():
            waits.append(time.monotonic())
            if len(waits) == 4:  # longer than the silence: a live process is waited for
                holder.send_signal(signal.SIGSTOP)

        stuck = pytest.raises(StuckError, match=f"{STAGE} .* process {holder.pid} on")
        with stuck, store.claim(STAGE, waiting=waiting):
            pytest.fail("two processes compute one stage")
        assert len(waits) >= 4
    finally:
        holder.kill()
        holder.wait(30)


def test_full_disk_keeps_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    place = tmp_path / "checkpoint"
    write_atomically(place, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(place, b"new")
    assert is_full(caught.value)
    assert not is_full(ValueError("another"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert place.read_bytes() == b"old"


TOLD_TO_END = """
import signal, sys, threading, time
import torch
from raysweep.orchestration.compute.notice import heed_sigterm
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.compute.worker import run

class Slow:
    done = 0
    def step(self, batch):
        time.sleep(0.05)
        self.done += 1
        return {"loss": torch.zeros(())}
    def state_dict(self):
        return {"done": self.done}

def train():
    with StageStore(Storage(sys.argv[1])).claim(Stage("fit", {"lr": 0.1})) as workspace:
        run(Slow(), lambda step: step, name="fit", steps=10_000, checkpoints=workspace,
            report=lambda progress: print(progress.step, flush=True), checkpoint_seconds=1e9)

if sys.argv[2] == "trial":  # as Ray ends a process whose main thread runs a method
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
else:
    heed_sigterm()
thread = threading.Thread(target=train, daemon=True)
thread.start()
while thread.is_alive():
    time.sleep(0.05)
"""


@pytest.mark.parametrize("kind", ["trial", "train worker"])
def test_process_that_is_told_to_end_saves_first(store, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", TOLD_TO_END, store.storage.uri, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        reached = int(process.stdout.readline())
        assert not store.started(STAGE), "no checkpoint was due"
        process.send_signal(signal.SIGTERM)
        process.wait(GRACE_SECONDS - 5)  # it does not wait for more than there is to save
    finally:
        process.kill()
        process.wait(30)
    with store.claim(STAGE) as workspace:
        state = workspace.load_checkpoint()
    assert state["step"] > reached
    assert state["learner"] == {"done": state["step"]}


def test_warnings_of_the_package_reach_the_terminal_and_no_others(tmp_path, capfd):
    with terminal.quiet(tmp_path / "log.txt"):
        checkpoints.LOG.warning("damaged")
        os.write(1, b"noise")
    assert capfd.readouterr().out == "note: damaged\n"
    assert "noise" in (tmp_path / "log.txt").read_text()
