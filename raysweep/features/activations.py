"""Named activations: what modules of a network return while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from raysweep.config import ConfigError


@contextmanager
def recorded(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Run a block and collect the outputs of some modules, each the last one.

    Args:
        network: the network whose modules are meant.
        names: dotted names as in ``network.named_modules()``.

    Raises:
        ConfigError: there is no module of that name.
    """
    modules = dict(network.named_modules())
    for name in names:
        if name not in modules:
            known = ", ".join(key for key in modules if key)
            raise ConfigError(f"fit.layers: no module is called {name!r}; there are {known}")
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, output: torch.Tensor) -> None:
        found[name] = output

    handles = [
        modules[name].register_forward_hook(
            lambda _module, _inputs, output, name=name: keep(name, output)
        )
        for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
