"""Writes files as the official repositories do, without any code of theirs.

Their modules are pickled as a call of ``torch_utils.persistence._reconstruct_persistent_obj`` with
a dict of source text, class name and state.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from raysweep.config import Config

PLAIN = "torch.nn.modules"


@contextmanager
def official_modules() -> Iterator[types.ModuleType]:
    """Pretend that the repositories' modules can be imported; yields that of persistence."""
    persistence = types.ModuleType("torch_utils.persistence")
    util = types.ModuleType("dnnlib.util")

    def reconstruct(meta: dict[str, Any]) -> object:
        scope: dict[str, Any] = {}
        exec(meta["module_src"], scope)  # what makes these files dangerous
        return scope

    reconstruct.__module__ = "torch_utils.persistence"
    reconstruct.__qualname__ = reconstruct.__name__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = reconstruct
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    fakes = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }
    assert not fakes.keys() & sys.modules.keys()
    sys.modules.update(fakes)
    try:
        yield persistence
    finally:
        for name in fakes:
            del sys.modules[name]


def write_official(
    path: Path,
    networks: dict[str, nn.Module | None],
    *,
    init_kwargs: dict[str, dict[str, Any]] | None = None,
    source: str = "raise SystemExit('the source text was run')",
    protocol: int = 4,
    **extra: Any,
) -> Path:
    """Write ``{"G": ..., "D": ..., "G_ema": ...}`` and further entries."""
    kwargs = init_kwargs or {}
    with official_modules() as persistence:

        class Pickler(pickle.Pickler):
            def reducer_override(self, value: Any) -> Any:
                if not isinstance(value, nn.Module) or type(value).__module__.startswith(PLAIN):
                    return NotImplemented
                name = next((key for key, net in networks.items() if net is value), "")
                state = {k: v for k, v in vars(value).items() if not isinstance(v, Config)}
                if name in kwargs:
                    easy = sys.modules["dnnlib.util"].EasyDict
                    state["_init_kwargs"] = easy(kwargs[name])
                meta = {
                    "type": "class",
                    "version": 6,
                    "module_src": source,
                    "class_name": type(value).__name__,
                    "state": state,
                }
                return persistence._reconstruct_persistent_obj, (meta,)

        buffer = io.BytesIO()
        training_set = sys.modules["dnnlib.util"].EasyDict(path="data.zip", resolution=16)
        Pickler(buffer, protocol).dump(networks | {"training_set_kwargs": training_set} | extra)
    path.write_bytes(buffer.getvalue())
    return path


class Calls:
    """Pickled as a call of ``function`` with ``args``."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts
