import builtins
import collections
import copyreg
import io
import os
import pickle
import re
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from raysweep import rng
from raysweep.config import ConfigError
from raysweep.represent.restricted_pickle import read_official_pickle
from tests.represent.official_pickles import Calls, official_modules, write_official


class Layer(nn.Module):
    def __init__(self, seed):
        super().__init__()
        generator = rng.generator(seed, "layer")
        self.weight = nn.Parameter(torch.randn(3, 2, generator=generator))
        self.register_buffer("filter", torch.randn(2, 2, generator=generator).half())
        self.register_buffer("scratch", torch.zeros(5), persistent=False)
        self.register_parameter("bias", None)
        self.dtype, self.size, self.device = torch.float16, torch.Size([2]), torch.device("cpu")
        self.table = np.arange(3.0)
        self.scale = np.float32(2)


class Generator(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.first = Layer(seed)
        self.rest = nn.Sequential(Layer(seed + 1), nn.Linear(2, 2), nn.LeakyReLU(0.2))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("window", torch.arange(12.0)[2:8].view(2, 3).t())


@pytest.fixture
def marker(tmp_path):
    """A file that the attack would make."""
    path = tmp_path / "attacked"
    yield path
    assert not path.exists(), "the attack ran"


def write(tmp_path, value, **options):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(value, **options))
    return path


def refused(path, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        read_official_pickle(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "nothing" in str(error.value)


@pytest.mark.parametrize("protocol", [3, 4])  # defaults of Python 3.7 and 3.8
def test_reads_parameters_buffers_and_submodules(tmp_path, protocol):
    networks = {"G": Generator(1), "D": None, "G_ema": Generator(2)}
    kwargs = {"G_ema": {"z_dim": 3, "synthesis_kwargs": {"channel_base": 16}}}
    path = write_official(
        tmp_path / "n.pkl",
        networks,
        init_kwargs=kwargs,
        protocol=protocol,
        augment_pipe=Layer(3),
    )
    read = read_official_pickle(path)
    assert list(read) == ["G", "G_ema"]
    for name, network in read.items():
        assert network.class_name == "Generator"
        expected = networks[name].state_dict()
        assert network.tensors.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(network.tensors[key], tensor, rtol=0, atol=0)
    assert read["G_ema"].init_kwargs == kwargs["G_ema"]
    assert read["G"].init_kwargs == {}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_reads_every_kind_of_number(tmp_path, dtype):
    net = nn.Module()
    net.__class__ = Generator  # any class that is not torch's own
    net.register_buffer("x", torch.tensor([[0, 1], [1, 0], [1, 1]]).to(dtype))
    read = read_official_pickle(write_official(tmp_path / "n.pkl", {"G": net}))
    assert read["G"].tensors["x"].dtype == dtype
    assert torch.equal(read["G"].tensors["x"], net.x)


def test_source_text_is_not_run(tmp_path, marker):
    source = f"open({str(marker)!r}, 'w').close()"
    path = write_official(tmp_path / "n.pkl", {"G_ema": Generator()}, source=source)
    read_official_pickle(path)
    assert not marker.exists()
    with official_modules():  # the ordinary way does run it
        pickle.loads(path.read_bytes())
    assert marker.exists()
    marker.unlink()


ATTACKS = {
    "os.system": lambda marker: Calls(os.system, f"touch {marker}"),
    "builtins.eval": lambda marker: Calls(builtins.eval, f"open({str(marker)!r}, 'w')"),
    "builtins.exec": lambda marker: Calls(builtins.exec, f"open({str(marker)!r}, 'w')"),
    "io.open": lambda marker: Calls(builtins.open, str(marker), "w"),
    "builtins.getattr": lambda marker: Calls(builtins.getattr, os, "system"),
    "subprocess.Popen": lambda marker: Calls(subprocess.Popen, ["touch", str(marker)]),
    "torch.hub.load": lambda marker: Calls(torch.hub.load, str(marker.parent), "x"),
    "torch.serialization.load": lambda marker: Calls(torch.load, str(marker)),
    "copyreg._reconstructor": lambda marker: Calls(copyreg._reconstructor, dict, dict, {}),
    "torch.jit._script.script": lambda marker: Calls(torch.jit.script, "x"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_of_other_functions_are_refused_by_name(tmp_path, marker, name, protocol):
    attack = ATTACKS[name](marker)
    if name == "builtins.getattr":
        attack = Calls(builtins.getattr, "os", "system")
    text = pickle.dumps({"G_ema": attack}, protocol=protocol)
    path = tmp_path / "network.pkl"
    path.write_bytes(text)
    module, _, function = name.rpartition(".")
    names = [f"{module}.{function}"]
    if protocol == 2:  # Python 2's names
        names += [f"{old}.{function}" for old in ("posix", "__builtin__", "copy_reg", "commands")]
    names += [f"posix.{function}", f"_io.{function}"]
    with pytest.raises(ConfigError, match="|".join(map(re.escape, names))) as error:
        read_official_pickle(path)
    assert "nothing in it was run" in str(error.value)


@pytest.mark.parametrize("place", ["state", "kwargs", "storage", "key", "extra"])
def test_attacks_inside_a_network_are_refused(tmp_path, marker, place):
    attack = Calls(os.system, f"touch {marker}")
    net, kwargs, extra = Generator(), {"G_ema": {}}, {}
    if place == "state":
        net.hook = attack
    elif place == "kwargs":
        kwargs["G_ema"]["z_dim"] = attack
    elif place == "storage":
        net.x = Calls(torch._utils._rebuild_tensor_v2, attack, 0, (1,), (1,), False, {})
    elif place == "key":
        net.table = {attack: 1}
    else:
        extra["augment_pipe"] = attack
    path = write_official(tmp_path / "n.pkl", {"G_ema": net}, init_kwargs=kwargs, **extra)
    refused(path, "posix.system")


def test_a_result_cannot_be_called(tmp_path, marker):
    # (OrderedDict())("touch ...") and a call of a text
    for stream in (
        b"\x80\x04ccollections\nOrderedDict\n)R\x8c\x01xR.",
        b"\x80\x04\x8c\x09os.system\x8c\x05touch\x85R.",
        b"\x80\x04ccollections\nOrderedDict\n\x8c\x01x\x85\x81.",
        b"\x80\x04ccollections\nOrderedDict\n)}\x8c\x01a\x8c\x01bs\x92.",
    ):
        path = tmp_path / "network.pkl"
        path.write_bytes(stream)
        refused(path, "nothing")


def storage_bytes(tensor):
    buffer = io.BytesIO()
    torch.save(tensor.storage(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def test_bytes_of_a_storage_are_not_unpickled_freely(tmp_path, marker):
    inner = pickle.dumps(Calls(os.system, f"touch {marker}"))
    path = write(tmp_path, {"G": Calls(torch.storage._load_from_bytes, inner)})
    refused(path, "posix.system")
    buffer = io.BytesIO()
    torch.save({"x": Calls(os.system, f"touch {marker}")}, buffer)
    path = write(tmp_path, {"G": Calls(torch.storage._load_from_bytes, buffer.getvalue())})
    refused(path, "nothing")


@pytest.mark.parametrize("count", [1 << 40, 5, 3])
def test_storages_must_be_as_long_as_they_say(tmp_path, count):
    payload = storage_bytes(torch.arange(4.0))
    declared = b"K\x04Ntq"
    assert payload.count(declared) == 1
    number = pickle.dumps(count, protocol=2)[2:-1]
    changed = payload.replace(declared, number + b"Ntq")
    path = write(tmp_path, {"G": Calls(torch.storage._load_from_bytes, changed)})
    refused(path, "storage whose length is not what it says")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (1 << 40,), (0,)),
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (2,), (-1,)),
        (-1, (2,), (1,)),
        (0, (2,), (1, 1)),
        (0, (1,) * 9, (1,) * 9),
        (0, 4, 1),
    ],
)
def test_tensors_must_lie_within_their_storage(tmp_path, offset, size, stride):
    storage = torch.arange(4.0).storage()
    rebuild = torch._utils._rebuild_tensor_v2
    tensor = Calls(rebuild, storage, offset, size, stride, False, collections.OrderedDict())
    path = write(tmp_path, {"G": tensor})
    refused(path, "nothing")


def test_copies_of_one_storage_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("raysweep.represent.restricted_pickle.MAX_BYTES", 20_000)
    payload = storage_bytes(torch.zeros(250))
    load = torch.storage._load_from_bytes
    write(tmp_path, {"G": [Calls(load, payload) for _ in range(4)]})
    path = write(tmp_path, {"G": [Calls(load, payload) for _ in range(40)]})
    assert path.stat().st_size < 20_000
    refused(path, "more than 20000 bytes")


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    path = write_official(tmp_path / "n.pkl", {"G": Generator()})
    monkeypatch.setattr("raysweep.represent.restricted_pickle.MAX_BYTES", 100)
    with pytest.raises(ConfigError, match="larger than 100 bytes"):
        read_official_pickle(path)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x80\x04\x82\x01.", "opcode"),  # extension code
        (b"\x80\x04Pname\n.", "opcode"),  # persistent id, as text
        (b"\x80\x04\x8c\x01aQ.", "persistent id"),
        (b"(S'os'\nios\nsystem\n.", "opcode"),  # INST
        (b"\x80\x04(cos\nsystem\n\x8c\x01ao.", "os.system"),  # OBJ
        (b"\x80\x04ccollections\nOrderedDict\n}\x8c\x08__code__Nsb.", "sets the state"),
        (b"\x80\x04ccollections\nOrderedDict\nN}\x8c\x05build\x8c\x01xs\x86b.", "sets the state"),
        (b"\x80\x04N\x8c\x01aa.", "appends to a NoneType"),
        (b"\x80\x04N\x8c\x01aNs.", "sets items of a NoneType"),
        (b"\x80\x04}))s.", "neither text nor number"),
        (b"\x80\x04\x8f()\x90.", "neither text nor number"),
        (b"\x80\x03cbuiltins\nset\n])a\x85R.", "neither text nor number"),
        (b"\x80\x03cbuiltins\nset\nX\x01\x00\x00\x00a\x85R.", "set of unknown contents"),
        (b"\x80\x03ccollections\nOrderedDict\n])]\x86a\x85R.", "neither text nor number"),
    ],
)
def test_opcodes_beyond_data_are_refused(tmp_path, stream, message):
    path = tmp_path / "network.pkl"
    path.write_bytes(stream)
    with pytest.raises(ConfigError, match=message):
        read_official_pickle(path)


def test_deep_keys_do_not_crash_the_interpreter(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x04})" + b"\x85" * 500_000 + b"Ns.")
    with pytest.raises(ConfigError, match="neither text nor number"):
        read_official_pickle(path)


def test_circles_of_submodules_end(tmp_path):
    net, inner = Generator(), Layer(0)
    net.first.child = inner
    inner._modules["again"] = net.first
    path = write_official(tmp_path / "n.pkl", {"G": net})
    with pytest.raises(ConfigError, match="too many or too deeply nested"):
        read_official_pickle(path)


@pytest.mark.parametrize("keep", [0, 1, 10, 200, -1])
def test_cut_files_are_refused(tmp_path, keep):
    path = write_official(tmp_path / "n.pkl", {"G": Generator()})
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "not a readable pickle")


def test_other_contents_are_named(tmp_path):
    with pytest.raises(ConfigError, match="holds a list instead of a dict with G, D, G_ema"):
        read_official_pickle(write(tmp_path, [1]))
    with pytest.raises(ConfigError, match="holds none of the networks G, D, G_ema"):
        read_official_pickle(write(tmp_path, {"G": None, "x": collections.OrderedDict(a=1)}))
    tensorflow = b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01."
    path = tmp_path / "network.pkl"
    path.write_bytes(tensorflow)
    refused(path, "a TensorFlow pickle; convert it to PyTorch first")
