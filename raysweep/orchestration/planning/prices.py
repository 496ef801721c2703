"""Machine hours of a plan and, where the user gives prices, money by type of machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.box
import rich.table
from pydantic import Field, field_validator
from rich.console import Console

from raysweep.config import Config, ConfigError, from_dict
from raysweep.orchestration.planning.devices import DEVICES, device_hours
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.planning.plan import Plan
from raysweep.orchestration.store.stages import StageStore

EXAMPLE = """\
currency: USD
machines:
  - {name: c7i.2xlarge, price: 0.357, cores: 8}
  - {name: g5.2xlarge, price: 1.212, cores: 8, gpus: 1, gpu: A10G}
  - {name: g5.2xlarge, price: 0.45, cores: 8, gpus: 1, gpu: A10G, spot: true}
"""
"""A price list; the prices are made up."""


class Machine(Config):
    """A type of machine that can be rented.

    Attributes:
        name: what the provider calls it.
        price: of one hour, in the currency of the list.
        cores: its CPU cores.
        gpus: its GPUs; each runs a worker, and where there are none each core does.
        gpu: which GPUs they are, e.g. ``A10G``; None leaves hours and money open.
        spot: whether the provider may take it back at any time.
    """

    name: str = Field(min_length=1)
    price: float = Field(ge=0, allow_inf_nan=False)
    cores: int = Field(ge=1)
    gpus: int = Field(default=0, ge=0)
    gpu: str | None = None
    spot: bool = False

    @field_validator("gpu")
    @classmethod
    def _is_known(cls, gpu: str | None) -> str | None:
        known = [device.name for device in DEVICES]
        if gpu is not None and gpu not in known:
            raise ConfigError(f"allowed are {', '.join(known)}, or none at all")
        return gpu

    @property
    def workers(self) -> int:
        """How many workers run on one side by side."""
        return self.gpus or self.cores


class PriceList(Config):
    """What machines cost.

    Attributes:
        currency: three letters, e.g. ``USD``.
        machines: the types to choose from, each at most once on demand and once as spot.
    """

    currency: str = Field(pattern="^[A-Z]{3}$")
    machines: tuple[Machine, ...] = Field(min_length=1)

    @field_validator("machines")
    @classmethod
    def _each_once(cls, machines: tuple[Machine, ...]) -> tuple[Machine, ...]:
        kinds = [(machine.name, machine.spot) for machine in machines]
        for name, spot in kinds:
            if kinds.count((name, spot)) > 1:
                raise ConfigError(f"{name} is there twice{' as spot' if spot else ''}; drop one")
        return machines


def read_prices(path: str) -> PriceList:
    """Read a price list in YAML or JSON.

    Raises:
        ConfigError: there is no such file, or its content is not a price list; the message names
            the field and shows one that is.
    """
    import yaml  # type: ignore[import-untyped]  # comes with Ray and MLflow

    try:
        data: Any = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ConfigError(f"expected currency and machines, found {type(data).__name__}")
        return from_dict(PriceList, data)
    except OSError as error:
        raise ConfigError(f"--prices {path!r}: {error.strerror}") from None
    except (ConfigError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"--prices {path!r}: {error}\nA price list looks like\n{EXAMPLE}"
        ) from None


def show_cost(
    console: Console,
    plan: Plan,
    store: StageStore,
    *,
    times: Clock,
    seconds: float,
    prices: PriceList | None = None,
) -> None:
    """Print machine hours and, with prices, money.

    Args:
        console: where to.
        plan: what is asked for.
        store: knows what is done.
        times: estimates how long the rest takes.
        seconds: the same on one core, summed up.
        prices: what machines cost.
    """
    cores = os.cpu_count() or 1
    console.print(
        f"machine hours: about {seconds / 3600 / cores:.2f} of a machine like this one, "
        f"{cores} cores"
    )
    if prices is None:
        return
    left = {stage: trials for stage, trials in plan.stages().items() if not store.done(stage)}
    hours = {device.name: hours for device, hours in device_hours(left, times).items()}
    console.print(_table(prices, hours, of_a_core=seconds / 3600))
    if any(machine.gpus for machine in prices.machines):
        console.print("hours on GPUs are counted from shapes and were never measured on one")
    unnamed = dict.fromkeys(m.name for m in prices.machines if m.gpus and m.gpu is None)
    if unnamed:
        console.print(f"{', '.join(unnamed)}: give its gpu, one of {', '.join(hours)}")


def _table(prices: PriceList, hours: Mapping[str, float], *, of_a_core: float) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("all of it on", "workers", "machine hours", prices.currency):
        table.add_column(heading, justify="left" if heading == "all of it on" else "right")
    for machine in prices.machines:
        name = f"{machine.name}, spot" if machine.spot else machine.name
        of_a_worker = hours.get(machine.gpu or "") if machine.gpus else of_a_core
        if of_a_worker is None:
            table.add_row(name, str(machine.workers), "?", "?")
            continue
        whole = of_a_worker / machine.workers
        table.add_row(name, str(machine.workers), f"{whole:.2f}", f"{whole * machine.price:.2f}")
    return table
