"""Machine hours and money of a plan; a price list that is wrong is named before any work."""

from __future__ import annotations

import io
import json
import os

import pytest
from rich.console import Console

from raysweep.config import ConfigError
from raysweep.data.dataset import describe
from raysweep.orchestration import cli
from raysweep.orchestration.planning.devices import DEVICES
from raysweep.orchestration.planning.estimate import Clock
from raysweep.orchestration.planning.plan import make_plan
from raysweep.orchestration.planning.prices import EXAMPLE, read_prices, show_cost
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.sweeps.preview import preview
from raysweep.presets import smoke
from search_spaces import resolution

MACHINES = [
    {"name": "small", "price": 0.5, "cores": 4},
    {"name": "big", "price": 3, "cores": 8, "gpus": 2, "gpu": "A100"},
    {"name": "big", "price": 1, "cores": 8, "gpus": 2, "gpu": "A100", "spot": True},
    {"name": "odd", "price": 1, "cores": 8, "gpus": 1},
]


def written(tmp_path, content):
    place = tmp_path / "prices.yaml"
    place.write_text(content)
    return str(place)


@pytest.fixture(scope="module")
def planned():
    base = smoke()
    info = describe("face", builtin=base.data.builtin)
    cells = resolution.cells("smoke")[:4]
    plan = make_plan(resolution, base, cells=cells, repeats=1, fingerprint=info.fingerprint)
    return plan, info


@pytest.fixture
def dry_run(planned, tmp_path):
    plan, info = planned
    store = StageStore(Storage(str(tmp_path / "runs")))

    def run(**prices):
        screen = io.StringIO()
        console = Console(file=screen, width=100, highlight=False, markup=False)
        preview(console, plan, store, info=info, **prices)
        assert not (tmp_path / "runs").exists()
        return screen.getvalue()

    return run


def test_hours_and_money_by_type_of_machine(planned, tmp_path):
    plan, info = planned
    store = StageStore(Storage(str(tmp_path / "runs")))
    prices = read_prices(written(tmp_path, json.dumps({"currency": "EUR", "machines": MACHINES})))
    times = Clock(plan.trials, store, info.counts)
    screen = io.StringIO()
    console = Console(file=screen, width=100, highlight=False, markup=False)
    # 80 hours of one core
    show_cost(console, plan, store, times=times, seconds=80 * 3600.0, prices=prices)
    out = screen.getvalue()
    rows = [line.split() for line in out.splitlines() if line.startswith(("small", "big", "odd"))]
    assert rows[0] == ["small", "4", "20.00", "10.00"]
    assert rows[1][:2] == ["big", "2"]
    assert rows[2][:3] == ["big,", "spot", "2"]
    assert rows[3] == ["odd", "1", "?", "?"]
    assert "odd: give its gpu, one of" in out
    assert "never measured" in out
    assert f"about {80 / (os.cpu_count() or 1):.2f} of a machine like this one" in out


def test_gpu_machines_share_the_hours_of_one_gpu(planned, monkeypatch, tmp_path):
    plan, info = planned
    store = StageStore(Storage(str(tmp_path / "runs")))
    prices = read_prices(written(tmp_path, json.dumps({"currency": "EUR", "machines": MACHINES})))
    a100 = next(device for device in DEVICES if device.name == "A100")
    asked = []

    def ten_hours(stages, times):
        asked.extend(stages)
        return {a100: 10.0}

    monkeypatch.setattr("raysweep.orchestration.planning.prices.device_hours", ten_hours)
    screen = io.StringIO()
    console = Console(file=screen, width=100, highlight=False, markup=False)
    times = Clock(plan.trials, store, info.counts)
    show_cost(console, plan, store, times=times, seconds=60.0, prices=prices)
    rows = [line.split() for line in screen.getvalue().splitlines() if line.startswith("big")]
    assert rows == [["big", "2", "5.00", "15.00"], ["big,", "spot", "2", "5.00", "5.00"]]
    assert set(asked) == set(plan.stages())


def test_a_dry_run_shows_hours_always_and_money_where_prices_are_given(dry_run, tmp_path):
    without = dry_run()
    assert "machine hours" in without
    assert "USD" not in without
    priced = dry_run(prices=written(tmp_path, EXAMPLE))
    assert "USD" in priced
    assert "g5.2xlarge, spot" in priced


def test_wrong_prices_are_said_before_anything_is_printed(dry_run, tmp_path):
    with pytest.raises(ConfigError, match="--prices"):
        dry_run(prices=str(tmp_path / "nowhere.yaml"))


def test_the_examples_in_help_and_messages_are_price_lists(tmp_path):
    assert len(read_prices(written(tmp_path, EXAMPLE)).machines) == 3
    assert read_prices(written(tmp_path, cli.PRICES)).machines[0].spot


ONE = "{name: a, price: 1, cores: 2}"
BAD = [
    ("currency: [", "prices.yaml"),
    ("- a\n- b", "expected currency and machines, found list"),
    ("", "expected currency and machines, found NoneType"),
    (f"machines: [{ONE}]", "currency"),
    (f"currency: dollars\nmachines: [{ONE}]", "currency = 'dollars'"),
    ("currency: USD\nmachines: []", "machines"),
    ("currency: USD\nmachines: [{name: a, cores: 2}]", "machines.0.price"),
    ("currency: USD\nmachines: [{name: a, price: -1, cores: 2}]", "machines.0.price = -1"),
    ("currency: USD\nmachines: [{name: a, price: .nan, cores: 2}]", "machines.0.price"),
    ("currency: USD\nmachines: [{name: a, price: cheap, cores: 2}]", "price = 'cheap'"),
    ("currency: USD\nmachines: [{name: a, price: 1, cores: 0}]", "machines.0.cores = 0"),
    ("currency: USD\nmachines: [{name: a, price: 1, cores: 2, card: T4}]", "machines.0.card"),
    (
        "currency: USD\nmachines: [{name: a, price: 1, cores: 2, gpus: 1, gpu: A10}]",
        "machines.0.gpu = 'A10': allowed are ",
    ),
    ("currency: USD\nmachines: [{name: 2024-01-01, price: 1, cores: 2}]", "date"),
    (f"currency: USD\nmachines: [{ONE}, {ONE}]", "a is there twice"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_wrong_file_is_named_with_the_field_and_an_example(tmp_path, content, message):
    with pytest.raises(ConfigError) as error:
        read_prices(written(tmp_path, content))
    text = str(error.value)
    assert message in text
    assert text.startswith(f"--prices '{tmp_path / 'prices.yaml'}': ")
    assert EXAMPLE in text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--prices '.*nowhere.yaml': No such file"):
        read_prices(str(tmp_path / "nowhere.yaml"))
