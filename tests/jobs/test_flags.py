"""The flags are a promise to users: adding or dropping one must be a decision."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raysweep.config import ConfigError, override
from raysweep.data.dataset import describe
from raysweep.orchestration import cli
from raysweep.presets import smoke

ROOT = Path(__file__).parents[2]
SHARED = {"--preset", "--data", "--storage", "--workers", "--address", "--set", "--dry-run"}
SEARCH = {"--search", "--num-samples", "--repeats"}
SWEEP = SHARED | SEARCH | {"--prices", "--labels-from", "--gpus", "--gpus-per-trial"}


def options_of(parser):
    return {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}


def test_flags_are_frozen():
    assert options_of(cli.parser("a job")) == SHARED
    assert options_of(cli.parser("a sweep", sweep=True)) == SWEEP


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*.py")))
def test_help_shows_a_runnable_example(job, script):
    done = script(job, "--help")
    assert done.returncode == 0
    assert f"python jobs/{job}.py" in done.stdout
    assert done.stderr == ""


def test_jobs_are_thin():
    for path in (ROOT / "jobs").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 70, path


def load(job):
    spec = importlib.util.spec_from_file_location(job, ROOT / "jobs" / f"{job}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BAD = [
    (["--preset", "huge"], "--preset 'huge': allowed are smoke, demo, paper"),
    (["--set", "fit.projector.widht=[8,8]"], "did you mean fit.projector.widths"),
    (["--set", "fit.steps=many"], "fit.steps = 'many'"),
    (["--set", "fit.steps"], "expected KEY=VALUE"),
    (["--set", "pretrain.trunk.name=vgg"], "pretrain.trunk.name = 'vgg'"),
    (["--set", "data.shots=64"], "data.shots = 64: only 8 labelled training images"),
    (
        ["--set", "evaluate.protocol=five_folds", "--set", "data.builtin.test=4"],
        "needs 5 or more test images, face has 4",
    ),
    (["--set", "fit.projector.kind=conv_a", "--set", "fit.projector.widths=null"], "needs 32 px"),
    (
        ["--set", "pretrain.method=weights", "--set", f"pretrain.weights={__file__}"],
        "test_flags.py",
    ),
    (["--storage", "/proc/nowhere"], "cannot be written"),
    (["--data", "/does/not/exist"], "/does/not/exist"),
    (["--data", "."], "classes.json"),
    (["--dry-run", "--prices", "/does/not/exist"], "--prices '/does/not/exist': No such file"),
    (["--prices", "prices.yaml"], "--prices prices.yaml: only with --dry-run"),
]


@pytest.mark.parametrize(("flags", "message"), BAD)
def test_bad_input_ends_with_one_message_before_ray_starts(flags, message, tmp_path, monkeypatch):
    job = load("sweep_resolution")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    argv = ["--preset", "smoke", "--storage", str(tmp_path / "runs"), *flags]
    with pytest.raises(ConfigError, match=re.escape(message)):
        job.main(argv)


def test_bad_input_exits_with_code_2_and_one_message(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "sweep_resolution.py", "--preset", "huge"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["error: --preset 'huge': allowed are smoke, demo, paper"]


@pytest.mark.parametrize("resolution", [4, 8])
def test_resolution_that_the_trunk_cannot_take(resolution, tmp_path):
    with pytest.raises(ConfigError, match="at least 16 px"):
        override(smoke(), {"pretrain.resolution": resolution})
    if resolution < 8:
        with pytest.raises(ConfigError, match="fit.resolution = 4"):
            override(smoke(), {"fit.resolution": resolution})


@pytest.mark.parametrize(
    ("split", "message"),
    [("val", "no labelled validation image; add"), ("test", "no labelled test image")],
)
def test_a_dataset_without_images_to_choose_or_score_on_is_refused(split, message, monkeypatch):
    info = describe("face", builtin=smoke().data.builtin)
    lacking = info.model_copy(update={"counts": info.counts | {split: 0}})
    monkeypatch.setattr(cli, "described", lambda data: lacking)
    with pytest.raises(ConfigError, match=message):
        cli.checked(smoke())
