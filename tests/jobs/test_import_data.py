import importlib.util
from pathlib import Path

import pytest

from raysweep.data.dataset import describe
from tests.data.folders import write_folder
from tests.data.published_trees import write_datasetgan

JOB = Path(__file__).parents[2] / "jobs" / "import_data.py"


@pytest.fixture
def run(capsys):
    """Run the job in this process; return its exit code, output and errors."""
    spec = importlib.util.spec_from_file_location("import_data", JOB)
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)

    def call(*arguments):
        code = job.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_converts_a_folder_and_says_what_it_made(tmp_path, run):
    source = write_folder(tmp_path / "parts")
    code, out, _ = run("folder", source, tmp_path / "shards")
    assert code == 0
    info = describe(str(source))
    for part in ("parts: 2 unlabelled, 4 train", info.fingerprint, str(tmp_path / "shards")):
        assert part in out
    assert describe(str(tmp_path / "shards")) == info


def test_converts_images_into_an_empty_directory(tmp_path, run):
    source = write_folder(tmp_path / "parts") / "images"
    (tmp_path / "shards").mkdir()
    code, *_ = run("images", source, tmp_path / "shards")
    assert code == 0
    assert describe(str(tmp_path / "shards")).counts["unlabelled"] == 6


@pytest.mark.parametrize("layout", ["folder", "images"])
def test_bad_input_is_named_and_nothing_is_left(tmp_path, run, layout):
    source = write_folder(tmp_path / "parts")
    (source / "images" / "0.png").write_bytes(b"")
    code, _, errors = run(layout, source, tmp_path / "shards")
    assert code == 2
    assert "images/0.png: unreadable or truncated" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


@pytest.mark.parametrize("layout", ["folder", "images"])
def test_keeps_its_hands_off_a_directory_in_use(tmp_path, run, layout):
    source = write_folder(tmp_path / "parts")
    target = tmp_path / "shards"
    target.mkdir()
    (target / "precious").write_text("mine")
    code, _, errors = run(layout, source, target)
    assert code == 2
    assert f"{target} exists and is not empty; choose another" in errors
    assert [path.name for path in target.iterdir()] == ["precious"]


def test_the_job_ends_with_code_2_and_one_message(tmp_path, script):
    done = script("import_data", "images", tmp_path, tmp_path / "shards")
    assert done.returncode == 2
    assert done.stderr.strip().startswith(f"error: {tmp_path} holds no image")
    assert len(done.stderr.strip().splitlines()) == 1


def test_imports_a_published_set_with_its_merge_and_a_sheet(tmp_path, run):
    source = write_datasetgan(tmp_path / "annotation")
    target = tmp_path / "face8"
    code, out, errors = run(
        "datasetgan", source, target, "--category", "face", "--merge", "face8_lagm"
    )
    assert code == 0
    assert "datasetgan-face34-face8_lagm: 0 unlabelled, 3 train, 0 val, 12 test" in out
    assert "LAGM, released code" in out
    assert "CC BY-NC 4.0" in errors
    assert describe(str(target)).classes[1] == "ear"
    assert (target / "contact-sheet.png").is_file()
