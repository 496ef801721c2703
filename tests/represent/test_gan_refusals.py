import json
import os
import re

import pytest
import torch

from raysweep.config import ConfigError
from raysweep.represent.gan_weights import import_checkpoint, read_imported, save_imported
from tests.represent.gan_checkpoints import (
    normal,
    official,
    port,
    rosinality_parts,
    saved,
    second,
)
from tests.represent.official_pickles import Calls, write_official


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"G_ema": {"mapping_kwargs": {"lr_multiplier": 0.1}}}, "lr_multiplier = 0.1"),
        ({"G_ema": {"synthesis_kwargs": {"num_fp16_res": 2}}}, "num_fp16_res = 2"),
        ({"G_ema": {"synthesis_kwargs": {"conv_clamp": 256}}}, "num_fp16_res = 0"),
        ({"D": {"epilogue_kwargs": {"mbstd_group_size": None}}}, "mbstd_group_size = None"),
        ({"D": {"epilogue_kwargs": {"mbstd_num_channels": 2}}}, "mbstd_num_channels = 2"),
    ],
)
def test_official_options_that_cannot_be_followed(tmp_path, kwargs, message):
    _, path = official(tmp_path / "n.pkl", init_kwargs=kwargs)
    with pytest.raises(ConfigError, match=f"n.pkl: Generator has .*{re.escape(message)}"):
        import_checkpoint(path)


def rosinality_cases():
    generator, discriminator = rosinality_parts()
    missing = {name: t for name, t in generator.items() if name != "convs.2.activate.bias"}
    kernel = generator | {"to_rgbs.1.upsample.kernel": torch.ones(4, 4) / 4}
    lone = {name: t for name, t in discriminator.items() if name != "convs.2.skip.0.kernel"}
    return {
        "missing": (
            {"g_ema": missing | {"surprise": normal(2)}},
            r"generator does not fit.*1 missing: synthesis\.b16\.conv0\.bias; 1 left over: surpr",
        ),
        "shape": (
            {"g_ema": generator | {"conv1.activate.bias": normal(3)}},
            r"1 of another shape: synthesis\.b4\.conv1\.bias \(3,\) instead of \(10,\)",
        ),
        "nan": (
            {"g_ema": generator | {"conv1.activate.bias": torch.full((10,), torch.nan)}},
            r"1 not finite: synthesis\.b4\.conv1\.bias",
        ),
        "kernel": ({"g_ema": kernel}, r"to_rgbs\.1\.upsample\.kernel = .* another low-pass kernel"),
        "lost kernel": ({"g_ema": generator, "d": lone}, r"convs\.2\.skip\.0\.kernel"),
        "discriminator": (
            {"g_ema": generator, "d": discriminator | {"convs.9.0.weight": normal(1)}},
            r"discriminator does not fit.*1 left over: convs\.9\.0\.weight",
        ),
        "empty mapping": (
            {"g_ema": {n: t for n, t in generator.items() if "style" not in n}},
            r"lacks the matrix mapping\.fc0\.weight",
        ),
        "channels": (
            {"g_ema": generator | {"convs.1.conv.weight": normal(1, 7, 10, 3, 3)}},
            r"channels \{4: 10, 8: 7, .* do not follow min",
        ),
        "scalar": (
            {"g_ema": generator | {"convs.1.conv.weight": normal()}},
            r"channels \{4: 10, 8: 0",
        ),
    }


def other_cases():
    truncation = port() | {"truncation.avg_latent": normal(18, 4)}
    return {
        "port": ({n: t for n, t in port().items() if "epi1" not in n}, r"9 missing: g_synthesis"),
        "means": (truncation, "differs between layers"),
        "8 px": ({n: t for n, t in port().items() if "16x16" not in n}, "resolution = 8: Input"),
        "0 px": (
            port() | {"g_synthesis.blocks.0x0.epi2.top_epi.noise.weight": normal(1)},
            "lacks the convolutions",
        ),
        "no mean": (port() | {"truncation.avg_latent": normal()}, r"avg_latent has shape \(\)"),
        "unknown": ({"weights": {"x": normal(1)}}, "no known layout; has weights; known are the"),
        "list": ([normal(1)], "holds a list"),
        "code": ({"g_ema": Calls(os.system, "exit 1")}, "cannot be read as tensors alone"),
    }


CASES = rosinality_cases() | other_cases()


@pytest.mark.parametrize("case", CASES)
def test_files_that_do_not_fit_are_refused(tmp_path, case):
    content, message = CASES[case]
    path = saved(tmp_path / "bad.pt", content)
    with pytest.raises(ConfigError, match=message) as error:
        import_checkpoint(path)
    assert str(error.value).count(str(path)) == 1


def test_official_networks_must_be_complete(tmp_path):
    _, path = official(tmp_path / "n.pkl")
    conditional = second("ema")
    conditional.mapping.embed = torch.nn.Linear(3, 6)
    write_official(path, {"G_ema": conditional})
    with pytest.raises(ConfigError, match=r"2 left over: mapping\.embed\.bias.*Models with labels"):
        import_checkpoint(path)
    sharp = second("ema")
    sharp.synthesis.b8.conv0.resample_filter.fill_(1 / 16)
    with pytest.raises(
        ConfigError, match=r"b8\.conv0\.resample_filter = .*another low-pass kernel"
    ):
        import_checkpoint(write_official(path, {"G_ema": sharp}))
    bare = second("ema")
    del bare.synthesis.b16.torgb.bias
    with pytest.raises(ConfigError, match=r"1 missing: synthesis\.b16\.torgb\.bias"):
        import_checkpoint(write_official(path, {"G_ema": bare}))
    with pytest.raises(ConfigError, match="Linear lacks the .*only StyleGAN2 can be imported"):
        import_checkpoint(write_official(path, {"G_ema": torch.nn.Linear(2, 2)}))
    with pytest.raises(ConfigError, match=r"holds no generator \(G_ema or G\)"):
        import_checkpoint(write_official(path, {"D": torch.nn.Linear(2, 2)}))


def test_missing_and_damaged_files_are_named(tmp_path):
    for name in ("a.pkl", "a.pt"):
        with pytest.raises(ConfigError, match=f"{name}: no such file"):
            import_checkpoint(tmp_path / name)
        (tmp_path / name).write_bytes(b"nothing of use")
        with pytest.raises(ConfigError, match=name):
            import_checkpoint(tmp_path / name)


def test_directories_in_use_stay_as_they_are(tmp_path):
    imported = import_checkpoint(saved(tmp_path / "port.pt", port()))
    target = tmp_path / "weights"
    target.mkdir()
    (target / "precious").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not empty; choose another"):
        save_imported(imported, target)
    assert [file.name for file in target.iterdir()] == ["precious"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["port.pt", "weights"]


def test_half_written_directories_are_not_left(tmp_path, monkeypatch):
    imported = import_checkpoint(saved(tmp_path / "port.pt", port()))

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ConfigError, match=r"weights cannot be written \(no space left\)"):
        save_imported(imported, tmp_path / "weights")
    assert [file.name for file in tmp_path.iterdir()] == ["port.pt"]


@pytest.mark.parametrize("damage", ["card", "tensors", "config", "nothing there"])
def test_damaged_directories_are_refused(tmp_path, damage):
    target = tmp_path / "weights"
    if damage != "nothing there":
        save_imported(import_checkpoint(saved(tmp_path / "port.pt", port())), target)
    if damage == "card":
        (target / "card.json").write_text("{")
    elif damage == "tensors":
        (target / "generator.safetensors").write_bytes(b"0")
    elif damage == "config":
        card = json.loads((target / "card.json").read_text())
        card["config"]["resolution"] = 32
        (target / "card.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match=re.escape(str(target))):
        read_imported(target)
