"""Reads the pickles of NVIDIA's StyleGAN2-ADA and StyleGAN3 repositories without running them.

Those files hold the source text of their modules, which the ordinary way of loading executes. Here
the pickle is read by an interpreter of its own with a short list of opcodes and names: every name
stands for an inert description, calling one of them builds a plain value, and nothing can be
imported, called or set beyond that. The source text is skipped.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raysweep.config import ConfigError
from raysweep.represent.pickle_opcodes import (
    MAX_BYTES,
    ForbiddenPickleError,
    Global,
    Record,
    RestrictedUnpickler,
    check_keys,
)

NETWORKS = ("G", "D", "G_ema")

MAX_DEPTH = 32
"""Levels of submodules; the official networks have 4."""

MAX_MODULES = 10_000
"""Submodules of a file; the official networks have about 100."""

MAX_AXES = 8
"""Of a tensor."""

STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# header of a storage written by torch.save outside a zip file
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class OfficialNetwork:
    """One network of an official file.

    Attributes:
        class_name: as in the source that is not run, e.g. ``Generator``.
        init_kwargs: arguments that the network was built with: plain values.
        tensors: parameters and persistent buffers under their dotted names, on the CPU.
    """

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor] = field(repr=False)


def read_official_pickle(path: Path | str) -> dict[str, OfficialNetwork]:
    """Return the networks G, D and G_ema of an official ``.pkl``, those that are there.

    Args:
        path: the file.

    Raises:
        ConfigError: the file is no such pickle, or names anything that these files do not need;
            nothing of it was run.
    """
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; official files have 0.4e9")
    try:
        content = OfficialUnpickler(io.BytesIO(path.read_bytes())).load()
        networks = _networks(content)
    except ForbiddenPickleError as error:
        raise ConfigError(f"{path}: {error}; nothing in it was run") from None
    except Exception as error:  # whatever a damaged stream leads the interpreter to
        raise ConfigError(
            f"{path}: not a readable pickle of StyleGAN2-ADA ({type(error).__name__}: {error}); "
            "nothing in it was run"
        ) from None
    if not networks:
        raise ConfigError(f"{path}: holds none of the networks {', '.join(NETWORKS)}")
    return networks


class OfficialUnpickler(RestrictedUnpickler):
    """Knows the names that the official files use."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.total = 0
        self.known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": _mapping,
            "dnnlib.util.EasyDict": _mapping,
            "builtins.set": _set,
            "torch.Size": _size,
            "torch.device": _size,
            "torch.storage._load_from_bytes": self._storage,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
            "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
            "numpy.ndarray": _unread,
            "numpy.dtype": _unread,
        }
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            # arrays stay descriptions: no official network keeps weights in them
            self.known[f"{module}._reconstruct"] = _unread
            self.known[f"{module}.scalar"] = _unread

    def find_class(self, module: str, name: str) -> Any:
        """Return an inert stand-in for a known name.

        Raises:
            ForbiddenPickleError: the name is not on the list.
        """
        full = f"{module}.{name}"
        if full in self.known:
            return Global(full, self.known[full])
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return name
        if module.startswith("torch.nn.modules.") and name.isidentifier():
            return Global(full, lambda *_: Record(kind=name))
        raise ForbiddenPickleError(_forbidden(module, full))

    def _claim(self, count: int) -> None:
        self.total += count
        if self.total > MAX_BYTES:
            raise ForbiddenPickleError(f"tensors of more than {MAX_BYTES} bytes")

    def _storage(self, payload: Any) -> torch.Tensor:
        if not isinstance(payload, bytes):
            raise ForbiddenPickleError("storage that is no bytes")
        self._claim(len(payload))
        return _elements(payload)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
        if not isinstance(storage, torch.Tensor) or not _shape(offset, size, stride):
            raise ForbiddenPickleError("tensor without storage or of no shape")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count > len(storage) or (count and last >= len(storage)):
            raise ForbiddenPickleError(f"tensor of shape {size} beyond its storage")
        self._claim(count * storage.element_size())
        return storage.as_strided(size, stride, offset) if count else storage.new_empty(size)

    def _parameter(self, data: Any, *_: Any) -> torch.Tensor:
        if not isinstance(data, torch.Tensor):
            raise ForbiddenPickleError("parameter that is no tensor")
        return data


class StorageUnpickler(RestrictedUnpickler):
    """Reads the header of one storage written by ``torch.save`` in its format before zip files."""

    allows_persistent_ids = True

    def find_class(self, module: str, name: str) -> Any:
        """Return the dtype of a storage class.

        Raises:
            ForbiddenPickleError: it is none.
        """
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ForbiddenPickleError(_forbidden(module, f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, int]:
        """Return dtype and number of elements of ``("storage", class, key, place, count, view)``.

        Raises:
            ForbiddenPickleError: it describes anything else.
        """
        match pid:
            case ("storage", torch.dtype() as dtype, str(), str(), int(count), None) if count >= 0:
                return dtype, count
        raise ForbiddenPickleError(f"persistent id {str(pid)[:80]}")


def _elements(payload: bytes) -> torch.Tensor:
    """Return the elements of a storage as a vector."""
    file = io.BytesIO(payload)
    magic, protocol, _, header, keys = (StorageUnpickler(file).load() for _ in range(5))
    match header:
        case (torch.dtype() as dtype, int(count)) if len(keys) == 1:
            pass
        case _:
            raise ForbiddenPickleError("storage of an unknown layout")
    body = file.read()
    size = count * dtype.itemsize
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or len(body) != 8 + size:
        raise ForbiddenPickleError("storage whose length is not what it says")
    if not count:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(body[8:]), dtype=dtype)


def _mapping(*args: Any) -> dict[Any, Any]:
    match args:
        case ():
            return {}
        case (list(pairs),):
            check_keys(key for key, _ in pairs)
            return dict(pairs)
    raise ForbiddenPickleError("dict of unknown contents")


def _set(members: Any) -> set[Any]:
    if not isinstance(members, list):
        raise ForbiddenPickleError("set of unknown contents")
    check_keys(members)
    return set(members)


def _size(*parts: Any) -> Any:
    return parts


def _unread(*_: Any) -> Record:
    return Record()


def _persistent(meta: Any) -> Record:
    """Return class name and state of an object kept by ``torch_utils.persistence``."""
    match meta:
        case {"type": "class", "version": int(), "class_name": str(name), "state": dict(state)}:
            return Record(kind=name, state=state)
    raise ForbiddenPickleError("persistent object of an unknown layout")


def _networks(content: Any) -> dict[str, OfficialNetwork]:
    if not isinstance(content, dict):
        raise ForbiddenPickleError(
            f"holds a {type(content).__name__} instead of a dict with {', '.join(NETWORKS)}"
        )
    return {
        name: _network(content[name]) for name in NETWORKS if isinstance(content.get(name), Record)
    }


def _network(record: Record) -> OfficialNetwork:
    kwargs = record.state.get("_init_kwargs", {})
    return OfficialNetwork(
        class_name=record.kind,
        init_kwargs=kwargs if isinstance(kwargs, dict) else {},
        tensors=dict(_tensors(record, "", [MAX_MODULES])),
    )


def _tensors(record: Record, prefix: str, left: list[int]) -> Iterator[tuple[str, torch.Tensor]]:
    left[0] -= 1
    if left[0] < 0 or prefix.count(".") > MAX_DEPTH:
        raise ForbiddenPickleError("too many or too deeply nested submodules")
    state = record.state
    hidden = state.get("_non_persistent_buffers_set", ())
    own = state.get("_parameters", {}) | state.get("_buffers", {})
    for name, value in own.items():
        if isinstance(value, torch.Tensor) and name not in hidden:
            yield f"{prefix}{name}", value
    for name, child in state.get("_modules", {}).items():
        if isinstance(child, Record):
            yield from _tensors(child, f"{prefix}{name}.", left)


def _shape(offset: Any, size: Any, stride: Any) -> bool:
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) > MAX_AXES:
        return False
    return all(type(n) is int and n >= 0 for n in (offset, *size, *stride))


def _forbidden(module: str, full: str) -> str:
    if module.startswith("dnnlib.tflib"):
        return (
            f"names {full}: a TensorFlow pickle; convert it to PyTorch first (legacy.py of "
            "StyleGAN2-ADA)"
        )
    return (
        f"names {full}, which no official StyleGAN2-ADA file needs; do not load this file with "
        "pickle"
    )
