import json

import pytest
import safetensors.torch
import torch

from raysweep import rng
from raysweep.config import ConfigError, override, to_dict
from raysweep.nets.stylegan2 import Generator
from raysweep.represent import generators
from raysweep.represent.generators import read_generator, sample, save_generator, to_uint8
from tests.represent.gan_cases import BASE


def generator(**changes):
    config = override(BASE.gan.network, changes)
    with rng.seeded(0, "generator"):
        network = Generator(config).eval().requires_grad_(False)
        for name, value in network.named_parameters():
            if name.endswith("noise_strength"):  # 0 at first: noise would not be seen
                value.fill_(0.5)
        network.mapping.w_avg.normal_()
    return network


def sampled(network, count, *, seed=0, psi=1.0):
    return torch.cat(list(sample(network, count, seed=seed, psi=psi)))


@pytest.mark.parametrize("changes", [{}, {"resolution": 32, "z_dim": 5, "mapping_layers": 3}])
def test_a_generator_comes_back_from_its_file(changes, tmp_path):
    network = generator(**changes)
    save_generator(network, tmp_path / "generator.safetensors")
    again = read_generator(str(tmp_path / "generator.safetensors"))
    assert again.config == network.config
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert torch.equal(sampled(again, 3, psi=0.7), sampled(network, 3, psi=0.7))


def test_equal_generators_make_equal_files(tmp_path):
    for name in ("a", "b"):
        save_generator(generator(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_that_hold_no_generator_are_refused(tmp_path):
    tensors = generator().state_dict()
    header = {"stylegan2": json.dumps(to_dict(BASE.gan.network))}
    fewer = {name: value for name, value in tensors.items() if "b16" not in name}
    wider = tensors | {"synthesis.b4.const": torch.zeros(9, 4, 4)}
    for name, content, words in (
        ("other", {"x": torch.zeros(1)}, None),
        ("headless", tensors, {"format": "pt"}),
        ("no json", tensors, {"stylegan2": "{"}),
        ("no config", tensors, {"stylegan2": json.dumps({"resolution": 17})}),
        ("fewer", fewer, header),
        ("wider", wider, header),
    ):
        safetensors.torch.save_file(content, str(tmp_path / name), metadata=words)
        with pytest.raises(ConfigError):
            read_generator(tmp_path / name)
    (tmp_path / "text").write_text("not a generator")
    save_generator(generator(), tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-7])
    for name in ("text", "cut", "missing", "."):
        with pytest.raises(ConfigError, match=name):
            read_generator(tmp_path / name)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_an_image_depends_on_seed_and_number_only(batch, monkeypatch):
    network = generator()
    whole = sampled(network, 7).int()
    monkeypatch.setattr(generators, "BATCH", batch)
    for count in (1, 4, 7):
        fewer = sampled(network, count)
        assert fewer.shape == (count, 3, 16, 16)
        assert (fewer.int() - whole[:count]).abs().max() <= 1  # rounding of other batch sizes
    assert [len(part) for part in sample(network, 7, seed=0)] == {
        1: [1] * 7,
        3: [3, 3, 1],
        64: [7],
    }[batch]
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(sampled(network, 7, seed=1).int(), whole)
    assert sampled(network, 7).dtype == torch.uint8
    assert list(sample(network, 0, seed=0)) == []


def test_sampling_leaves_the_global_generator_alone():
    network = generator()
    torch.manual_seed(1)
    first, state = sampled(network, 2), torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(sampled(network, 2), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_truncation_pulls_to_the_mean():
    network = generator()
    for block in network.synthesis.children():
        for layer in block.children():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.zero_()
    mean = network.mapping.w_avg.expand(1, network.config.num_ws, -1)
    centre = to_uint8(network.synthesis(mean)).int()
    distances = [
        (sampled(network, 6, psi=psi).int() - centre).abs().float().mean().item()
        for psi in (0.0, 0.3, 0.7, 1.0)
    ]
    assert distances[0] < 0.01
    assert distances == sorted(distances)
    assert distances[1] > distances[0] + 0.5
    assert distances[3] > distances[2]


def test_images_are_scaled_rounded_down_and_cut_off():
    values = [-5.0, -1.0, -0.999, 0.0, 0.5, 0.99607, 1.0, 1.5, 100.0]
    expected = [min(255, max(0, int(127.5 * value + 128))) for value in values]
    assert expected[:2] == [0, 0]  # 0.5 is rounded down
    assert to_uint8(torch.tensor(values)).tolist() == expected
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels.byte())  # inverse of the reading
