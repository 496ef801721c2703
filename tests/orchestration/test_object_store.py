"""Everything that is stored, on an object store that speaks S3."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow.fs as pafs
import pytest
import torch

from raysweep.config import ConfigError
from raysweep.data.dataset import describe, open_dataset
from raysweep.data.imports import import_published
from raysweep.data.published.common import ImportConfig
from raysweep.distill.manifest import read_manifest
from raysweep.distill.shards import ShardError, ShardsConfig, write_shard, write_shards
from raysweep.distill.stream import ShardStream
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from tests.data.folders import write_folder
from tests.distill.pseudo import BAD_ROWS, CLASSES, TEACHER, row

STAGE = Stage("fit", {"lr": 0.1, "steps": 3}, {"data": "abc"})


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
        "from raysweep.orchestration.store.stages import Stage, StageStore\n"
        "from raysweep.orchestration.store.storage import Storage\n"
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
