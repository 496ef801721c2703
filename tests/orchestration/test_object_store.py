"""Everything that is stored, on an object store that speaks S3."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import ray
import torch

from raysweep.config import ConfigError, override
from raysweep.data.dataset import describe, open_dataset
from raysweep.data.imports import import_published
from raysweep.data.published.common import ImportConfig
from raysweep.distill.manifest import read_manifest
from raysweep.distill.shards import ShardError, ShardsConfig, write_shard, write_shards
from raysweep.distill.stream import ShardStream
from raysweep.orchestration.datasets import opened
from raysweep.orchestration.pipeline import compute
from raysweep.orchestration.plan import Cell, make_trial
from raysweep.orchestration.stages import Stage, StageStore
from raysweep.orchestration.storage import Storage
from raysweep.orchestration.tune import Listener, device_here, run_trials
from raysweep.orchestration.worker import Run
from raysweep.presets import smoke
from search_spaces import resolution
from tests.data.folders import write_folder
from tests.distill.pseudo import BAD_ROWS, CLASSES, TEACHER, row
from tests.orchestration.object_store import serving

ROOT = Path(__file__).parents[2]
STAGE = Stage("fit", {"lr": 0.1, "steps": 3}, {"data": "abc"})


@pytest.fixture(scope="module")
def bucket():
    with serving() as found:
        yield found


@pytest.fixture
def on_machine(bucket, request, tmp_path, monkeypatch):
    """Name of a machine to the same stage store, seen from there: machines share no disk."""

    def store(machine):
        monkeypatch.setenv("RAYSWEEP_SCRATCH", str(tmp_path / machine))
        return StageStore(Storage(bucket.uri(request.node.name)))

    return store


def interrupted(store, *, step, files):
    """Compute a stage until it fails, its files and a checkpoint written."""

    def compute():
        with store.claim(STAGE) as workspace:
            for name, content in files.items():
                place = workspace.path / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(content)
            workspace.save_checkpoint({"step": step, "weights": torch.arange(step)})
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        compute()


# stages


def test_a_finished_stage_is_there_for_every_machine(on_machine, bucket, request):
    with on_machine("a").claim(STAGE) as workspace:
        (workspace.path / "weights").write_bytes(b"w" * 1000)
        (workspace.path / "samples").mkdir()
        (workspace.path / "samples" / "0.png").write_bytes(b"")
        workspace.save_checkpoint({"step": 1})
        workspace.commit({"loss": 0.5})
    elsewhere = on_machine("b")
    assert elsewhere.done(STAGE)
    assert not elsewhere.started(STAGE)
    assert elsewhere.finished("fit") == [STAGE.key]
    assert elsewhere.record(STAGE)["metrics"] == {"loss": 0.5}
    directory = elsewhere.directory(STAGE)
    assert (directory / "weights").read_bytes() == b"w" * 1000
    assert (directory / "samples" / "0.png").read_bytes() == b""
    with elsewhere.claim(STAGE) as workspace:
        assert workspace is None
    left = {name.split("/")[0] for name in bucket.listed(request.node.name)}
    assert left == {"stages"}, "work of a finished stage is left in the bucket"


def test_another_machine_goes_on_with_the_files_that_the_checkpoint_builds_on(on_machine):
    interrupted(on_machine("a"), step=7, files={"candidate-5": b"five", "samples/0.png": b"png"})
    elsewhere = on_machine("b")
    assert elsewhere.started(STAGE)
    assert not elsewhere.done(STAGE)
    with elsewhere.claim(STAGE) as workspace:
        state = workspace.load_checkpoint()
        (workspace.path / "candidate-9").write_bytes(b"nine")
        workspace.commit({})
    assert state["step"] == 7
    assert torch.equal(state["weights"], torch.arange(7))
    directory = on_machine("c").directory(STAGE)
    names = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    assert names == {"candidate-5", "candidate-9", "samples/0.png", "stage.json", "DONE"}


def test_the_newest_checkpoint_counts_and_only_what_changed_is_sent(on_machine, monkeypatch):
    interrupted(on_machine("a"), step=1, files={"candidate-1": b"one"})
    interrupted(on_machine("b"), step=2, files={"candidate-2": b"two"})
    sent, upload = [], Storage.upload

    def spy(storage, source, *names):
        sent.append(names[-1])
        upload(storage, source, *names)

    monkeypatch.setattr(Storage, "upload", spy)
    with on_machine("a").claim(STAGE) as workspace:  # its own disk still has step 1
        assert workspace.load_checkpoint()["step"] == 2
        (workspace.path / "candidate-3").write_bytes(b"three")
        for step in (3, 4):
            workspace.save_checkpoint({"step": step})
    assert sent == ["candidate-3", "checkpoint.pt", "checkpoint.pt"]


def test_a_kill_before_the_end_of_an_upload_leaves_an_unfinished_stage(
    on_machine, bucket, request, tmp_path
):
    code = (
        "import os, signal\n"
        "from raysweep.orchestration.stages import Stage, StageStore\n"
        "from raysweep.orchestration.storage import Storage\n"
        "class Killed(Storage):\n"
        "    def upload(self, source, *names):\n"
        "        if names[-1] == 'DONE':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        super().upload(source, *names)\n"
        f"store = StageStore(Killed({bucket.uri(request.node.name)!r}))\n"
        "stage = Stage('fit', {'lr': 0.1, 'steps': 3}, {'data': 'abc'})\n"
        "with store.claim(stage) as workspace:\n"
        "    (workspace.path / 'weights').write_bytes(b'w')\n"
        "    workspace.save_checkpoint({'step': 3})\n"
        "    workspace.commit({})\n"
    )
    scratch = {"RAYSWEEP_SCRATCH": str(tmp_path / "killed")}
    killed = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | scratch, check=False, timeout=100
    )
    assert killed.returncode == -9
    store = on_machine("b")
    assert f"stages/fit/{STAGE.key}/weights" in bucket.listed(request.node.name)
    assert not store.done(STAGE)
    assert store.finished("fit") == []
    with pytest.raises(FileNotFoundError, match="is not finished"):
        store.directory(STAGE)
    with on_machine("killed").claim(STAGE) as workspace:  # the kill left no lock either
        assert workspace.load_checkpoint() == {"step": 3}
        workspace.commit({"loss": 1.0})
    assert on_machine("b").record(STAGE)["metrics"] == {"loss": 1.0}


def test_what_ray_is_given_opens_as_a_place_below_the_storage(on_machine):
    storage = on_machine("a").storage
    _, root = pafs.FileSystem.from_uri(storage.address("work", "tune-1"))
    assert root == storage.path("work", "tune-1")


def test_a_storage_that_cannot_be_written_is_named_before_any_work(bucket):
    storage = Storage(f"s3://nobody-made-this-bucket/runs?{bucket.query}")
    with pytest.raises(ConfigError, match=r"--storage 's3://nobody.*cannot be written.*choose"):
        storage.check_writable()
    Storage(bucket.uri("fine")).check_writable()
    assert bucket.listed("fine") == {}


# data and pseudo-labels


def test_shards_are_written_read_and_streamed_as_on_the_local_disk(bucket, tmp_path):
    rows, config = [row(index) for index in range(150)], ShardsConfig(rows_per_file=70)
    streams = []
    for files, root in (
        (bucket.files, f"{bucket.name}/shards"),
        (pafs.LocalFileSystem(), str(tmp_path)),
    ):
        for _ in range(2):  # the second time over the first ones
            made = write_shards(
                files, root, rows, teacher=TEACHER, num_classes=CLASSES, config=config
            )
        manifest = read_manifest(files, root)
        assert manifest == made
        options = {"seed": 0, "batch": 8, "shuffle_buffer": 40}
        streams.append(ShardStream(manifest, files=files, root=root, **options))
    remote, local = streams
    assert remote.manifest == local.manifest
    batches = list(zip(remote, local, strict=True))
    assert len(batches) == 150 // 8
    assert all(torch.equal(ours[name], theirs[name]) for ours, theirs in batches for name in ours)
    assert set(bucket.listed("shards")) == {
        "manifest.json",
        *(f"part-{at:06d}.parquet" for at in range(3)),
    }


def test_shards_that_cannot_be_written_leave_nothing(bucket):
    changes, message = BAD_ROWS["label is too high"]
    with pytest.raises(ShardError, match=message):
        write_shard(
            bucket.files,
            f"{bucket.name}/bad/part.parquet",
            [row(0), row(1, **changes)],
            num_classes=CLASSES,
        )
    assert bucket.listed("bad") == {}
    with pytest.raises(ShardError, match="not finished"):
        read_manifest(bucket.files, f"{bucket.name}/bad")


def test_a_dataset_is_read_from_the_bucket(bucket, tmp_path):
    folder = write_folder(tmp_path / "parts")
    import_published(
        folder, tmp_path / "parquet", ImportConfig(kind="folder"), report=lambda done, total: None
    )
    pafs.copy_files(
        str(tmp_path / "parquet"), f"{bucket.name}/parts", destination_filesystem=bucket.files
    )
    uri = bucket.uri("parts")
    remote = open_dataset(uri, cache=tmp_path)
    local = open_dataset(str(folder), cache=tmp_path)
    assert describe(uri).fingerprint == local.info.fingerprint
    for split in ("train", "unlabelled"):
        assert torch.equal(remote.images(split, px=6), local.images(split, px=6))
    assert torch.equal(remote.masks("train", px=6), local.masks("train", px=6))
    with pytest.raises(ConfigError, match="does not exist"):
        open_dataset(bucket.uri("elsewhere"), cache=tmp_path)


# many processes


@pytest.fixture(scope="module")
def cluster(bucket):
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


def _compute(uri, scratch, *, met=None, dies=False):
    """Claim the stage in a process of a cluster; return whether it was computed and had to wait.

    The stage takes until another process waits for it, which makes the file ``met``.
    """
    os.environ["RAYSWEEP_SCRATCH"] = scratch
    store, waited = StageStore(Storage(uri)), []

    def waiting():
        waited.append(1)
        Path(met).touch()

    with store.claim(STAGE, waiting=waiting) as workspace:
        if dies:
            os._exit(1)
        if workspace is not None:
            deadline = time.monotonic() + 60
            while met and not Path(met).exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            workspace.commit({})
    return workspace is not None, bool(waited)


def start(uri, machine, **options):
    """Compute in a process that shares the bucket, not the disk, with those of other machines."""
    return ray.remote(num_cpus=1, max_retries=0)(_compute).remote(uri, str(machine), **options)


@pytest.mark.ray
def test_one_machine_of_a_cluster_computes_a_stage_and_the_others_wait(cluster, bucket, tmp_path):
    uri = bucket.uri("one-flight")
    tasks = [start(uri, tmp_path / name, met=str(tmp_path / "met")) for name in "ab"]
    found = ray.get(tasks, timeout=100)
    assert sorted(found) == [(False, True), (True, False)]


@pytest.mark.ray
def test_a_machine_that_dies_leaves_no_lock(cluster, bucket, tmp_path):
    uri = bucket.uri("dies")
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(start(uri, tmp_path / "a", dies=True), timeout=100)
    computed, _ = ray.get(start(uri, tmp_path / "b"), timeout=100)
    assert computed


@pytest.mark.ray
def test_trials_find_what_they_find_on_the_local_disk(cluster, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSWEEP_SCRATCH", str(tmp_path / "driver"))
    storage, local = Storage(bucket.uri("trials")), Storage(str(tmp_path / "runs"))
    base = override(smoke(), {"pretrain.method": "random", "pretrain.trunk.width": 4})
    cell = Cell("random", "16", {"fit.resolution": 16})
    dataset = opened(base.data, local.uri)
    fingerprint = dataset.info.fingerprint
    trial = make_trial(resolution, base, cell, repeat=0, fingerprint=fingerprint)
    ended, failures = [], []
    listener = Listener(
        progress=lambda trial, progress: None,
        finished=ended.append,
        failed=lambda trial, message: failures.append(message),
    )
    run_trials([trial], storage=storage, listener=listener)
    assert failures == []
    assert ended == [trial]
    run_here = Run(StageStore(local), dataset, device_here(), lambda progress: None)
    expected = compute(trial.experiment, run_here)["metrics"]
    assert StageStore(storage).record(trial.chain.evaluate)["metrics"] == expected
    assert {name.split("/")[0] for name in bucket.listed("trials")} == {"stages"}


def sweep(storage, scratch):
    job = ROOT / "jobs" / "sweep_resolution.py"
    flags = ["--preset", "smoke", "--repeats", "1", "--storage", storage]
    return subprocess.run(
        [sys.executable, str(job), *flags],
        capture_output=True,
        text=True,
        env=os.environ
        | {"RAYSWEEP_SCRATCH": str(scratch), "COLUMNS": "120", "RAY_ADDRESS": "local"},
        cwd=scratch,
        check=False,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1300)
def test_the_sweep_of_a_user_ends_with_the_table_of_the_local_disk(bucket, tmp_path):
    tables = {}
    for name, storage in (
        ("local", str(tmp_path / "runs")),
        ("remote", bucket.uri("sweep")),
        ("another machine", bucket.uri("sweep")),
    ):
        (tmp_path / name).mkdir()
        done = sweep(storage, tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("trials to run" in done.stdout) == (name != "another machine")
        tables[name] = done.stdout.split("mIoU on the test split")[1].split("mIoU: mean")[0]
    assert tables["remote"] == tables["another machine"] == tables["local"]
    assert {name.split("/")[0] for name in bucket.listed("sweep")} == {"stages"}
