import importlib.util
import json
from pathlib import Path

import pytest
import torch

from raysweep import rng
from raysweep.nets.stylegan1 import Generator, StyleGan1Config
from raysweep.represent.gan_weights import read_imported

JOB = Path(__file__).parents[2] / "jobs" / "import_weights.py"


@pytest.fixture
def job():
    spec = importlib.util.spec_from_file_location("import_weights", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkpoint(tmp_path):
    config = StyleGan1Config(
        resolution=16, z_dim=2, w_dim=2, mapping_layers=1, channel_base=16, channel_max=2
    )
    with rng.seeded(0, "checkpoint"):
        state = Generator(config).state_dict()
    del state["g_mapping.w_avg"]
    torch.save(state, tmp_path / "port.pt")
    return tmp_path / "port.pt"


def test_imports_and_says_what_it_made(job, checkpoint, tmp_path, capsys):
    target = tmp_path / "weights"
    assert job.main([str(checkpoint), str(target), "--licence", "mine"]) == 0
    out = capsys.readouterr().out
    assert f"port.pt (stylegan1-port): generator at 16 px; in {target}" in out
    assert "note: g_mapping.w_avg: mean of 8000 mapped latents" in out
    assert json.loads((target / "card.json").read_text())["licence"] == "mine"
    assert read_imported(target).config.resolution == 16


def test_licence_is_unknown_unless_told(job, checkpoint, tmp_path):
    job.main([str(checkpoint), str(tmp_path / "weights")])
    assert read_imported(tmp_path / "weights").licence == "unknown"


def test_bad_input_ends_with_code_2_and_one_message(tmp_path, script):
    path = tmp_path / "attack.pkl"
    path.write_bytes(b"\x80\x04cos\nsystem\n\x8c\x04exit\x85R.")
    done = script("import_weights", path, tmp_path / "weights")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: names os.system")
    assert len(done.stderr.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["attack.pkl"]
