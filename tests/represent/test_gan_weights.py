import argparse
import hashlib
import json

import pytest
import torch

from raysweep import rng
from raysweep.config import override
from raysweep.nets import stylegan1
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.represent.gan_weights import import_checkpoint, read_imported, save_imported
from tests.reference import rosinality
from tests.reference import stylegan1 as reference
from tests.represent.gan_checkpoints import (
    FIRST,
    SECOND,
    normal,
    official,
    port,
    rosinality_parts,
    saved,
)


@pytest.mark.parametrize("resolution", [16, 32])
def test_official_networks_work_as_before(tmp_path, resolution):
    config = override(SECOND, {"resolution": resolution})
    networks, path = official(tmp_path / "n.pkl", config=config)
    imported = import_checkpoint(path)
    assert (imported.format, imported.source, imported.notes) == ("stylegan2-ada", "n.pkl", ())
    assert imported.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.config == config
    z, images = normal(2, 6), normal(2, 3, resolution, resolution)
    with torch.no_grad():
        ours = imported.build_generator()(z, psi=0.5)
        torch.testing.assert_close(ours, networks["G_ema"](z, psi=0.5))
        assert not torch.allclose(ours, networks["G"](z, psi=0.5))
        torch.testing.assert_close(imported.build_discriminator()(images), networks["D"](images))


def test_official_generator_alone(tmp_path):
    networks, path = official(tmp_path / "n.pkl", D=None, G_ema=None)
    imported = import_checkpoint(path)
    assert torch.equal(imported.generator["mapping.w_avg"], networks["G"].mapping.w_avg)
    assert imported.discriminator is None
    with pytest.raises(ValueError, match=r"n\.pkl holds no discriminator"):
        imported.build_discriminator()


def test_official_options_that_tensors_do_not_tell(tmp_path):
    kwargs = {
        "G_ema": {"synthesis_kwargs": {"num_fp16_res": 2, "conv_clamp": 256}},
        "D": {"epilogue_kwargs": {"mbstd_group_size": 8}},
    }
    _, path = official(tmp_path / "n.pkl", init_kwargs=kwargs)
    assert import_checkpoint(path).config == override(SECOND, {"half_blocks": 2, "mbstd_group": 8})


@pytest.mark.parametrize("resolution", [16, 32])
def test_rosinality_images_and_logits_agree(tmp_path, resolution):
    config = override(SECOND, {"resolution": resolution})
    g, d = rosinality_parts(config=config)
    other, _ = rosinality_parts(2 * 10**5, config=config)
    mean = normal(6, name="mean")
    content = {"g": other, "g_ema": g, "d": d, "latent_avg": mean, "g_optim": {"state": {}}}
    content["args"] = argparse.Namespace(size=resolution)
    imported = import_checkpoint(saved(tmp_path / "ros.pt", content))
    assert (imported.format, imported.config, imported.notes) == ("rosinality", config, ())
    assert torch.equal(imported.generator["mapping.w_avg"], mean)
    generator, discriminator = imported.build_generator(), imported.build_discriminator()
    z, pictures = normal(2, 6), normal(2, 3, resolution, resolution)
    with torch.no_grad():
        ours, logits = generator(z), discriminator(pictures[:1])
    expected = torch.stack([rosinality.image(g, latent) for latent in z])
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[0], rosinality.logit(d, pictures[0]), atol=1e-4, rtol=1e-4)


def test_rosinality_without_mean_or_discriminator(tmp_path):
    g, _ = rosinality_parts()
    content = {"g": {f"module.{name}": tensor for name, tensor in g.items()}}
    imported = import_checkpoint(saved(tmp_path / "ros.pt", content))
    assert imported.discriminator is None
    assert len(imported.notes) == 1
    assert "mean of 8000 mapped latents" in imported.notes[0]
    mean = torch.stack([rosinality.latent(g, z) for z in normal(4000, 6, name="z")]).mean(0)
    torch.testing.assert_close(imported.generator["mapping.w_avg"], mean, atol=0.1, rtol=0)
    again = import_checkpoint(tmp_path / "ros.pt")
    assert torch.equal(imported.generator["mapping.w_avg"], again.generator["mapping.w_avg"])


PORTS = {
    "sequential": lambda state: state,
    "parallel": lambda state: {f"module.{name}": t for name, t in state.items()},
    "attribute": lambda state: {f"generator.{name}": t for name, t in state.items()},
    "without parts": lambda state: {
        n.removeprefix("g_mapping.").removeprefix("g_synthesis."): t for n, t in state.items()
    },
    "nested": lambda state: {"step": 3, "state_dict": state},
}


@pytest.mark.parametrize("form", PORTS)
@pytest.mark.parametrize("mean", ["absent", "row", "rows"])
def test_port_images_agree(tmp_path, form, mean):
    state = port()
    del state["g_mapping.w_avg"]
    expected = normal(4, name="mean")
    if mean != "absent":
        state["truncation.avg_latent"] = expected if mean == "row" else expected.expand(18, 4)
    imported = import_checkpoint(saved(tmp_path / "port.pt", PORTS[form](state)))
    assert (imported.format, imported.config) == ("stylegan1-port", FIRST)
    if mean == "absent":
        assert "mean of 8000" in imported.notes[0]
    else:
        assert imported.notes == ()
        assert torch.equal(imported.generator["g_mapping.w_avg"], expected)
    net, z = imported.build_generator(), normal(1, 3)
    noise = net.synthesis.draw_noise(1, generator=rng.generator(0, "noise"), device="cpu")
    lists = {name: tensor.tolist() for name, tensor in state.items()}
    planes = [plane[0, 0].tolist() for plane in noise]
    with torch.no_grad():
        ours = net(z, noise=noise)[0]
    if form == "sequential" and mean == "row":  # the loops are slow
        image = reference.generator(lists, z[0].tolist(), planes, resolution=16, layers=2, eps=1e-5)
        torch.testing.assert_close(ours, torch.tensor(image), atol=1e-4, rtol=1e-4)
    else:
        original = stylegan1.Generator(FIRST)
        original.load_state_dict(port())
        torch.testing.assert_close(ours, original(z, noise=noise)[0].detach())


def test_port_without_blur(tmp_path):
    state = {name: t for name, t in port().items() if "kernel" not in name}
    imported = import_checkpoint(saved(tmp_path / "port.pt", state))
    assert imported.config == override(FIRST, {"blur": False})


def test_sizes_of_the_published_models(tmp_path):
    """Full-size channels at 16 px tell nothing of their base: the papers' is taken."""
    config = StyleGan1Config(
        resolution=16, z_dim=2, w_dim=2, mapping_layers=8, instance_norm_eps=1e-5
    )
    state = {n: torch.zeros(t.shape) for n, t in meta(config).items() if "kernel" not in n}
    imported = import_checkpoint(saved(tmp_path / "port.pt", state))
    assert imported.config == override(config, {"blur": False})


def meta(config):
    with torch.device("meta"):
        return stylegan1.Generator(config).state_dict()


def test_half_precision_tensors_become_single(tmp_path):
    state = {name: tensor.half() for name, tensor in port().items()}
    imported = import_checkpoint(saved(tmp_path / "port.pt", state))
    assert {tensor.dtype for tensor in imported.generator.values()} == {torch.float32}


def test_saved_and_read_again(tmp_path):
    _, path = official(tmp_path / "n.pkl")
    imported = import_checkpoint(path)
    target = tmp_path / "deep" / "weights"
    save_imported(imported, target, licence="CC BY-NC 4.0")
    assert sorted(file.name for file in target.iterdir()) == [
        "card.json",
        "discriminator.safetensors",
        "generator.safetensors",
    ]
    card = json.loads((target / "card.json").read_text())
    assert card["licence"] == "CC BY-NC 4.0"
    assert card["source"] == "n.pkl"
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["format"] == "stylegan2-ada"
    assert card["architecture"] == "stylegan2"
    assert card["config"]["resolution"] == 32
    again = read_imported(target)
    assert (again.config, again.licence) == (imported.config, "CC BY-NC 4.0")
    for ours, theirs in (
        (again.generator, imported.generator),
        (again.discriminator, imported.discriminator),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stylegan1_saved_and_read_again(tmp_path):
    imported = import_checkpoint(saved(tmp_path / "port.pt", port()))
    save_imported(imported, tmp_path / "weights")
    again = read_imported(tmp_path / "weights")
    assert (again.config, again.discriminator, again.licence) == (FIRST, None, "unknown")
    z = normal(1, 3)
    assert torch.equal(again.build_generator()(z), imported.build_generator()(z))
