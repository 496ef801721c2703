from typing import Literal

import pytest

from raysweep import config
from raysweep.config import Config, ConfigError


class Inner(Config):
    width: int = 64
    rate: float = 0.1


class Outer(Config):
    name: Literal["mlp", "conv"] = "mlp"
    widths: tuple[int, ...] = (1, 2)
    shuffle: bool = True
    limit: int | None = None
    inner: Inner = Inner()


CHANGED = Outer(name="conv", widths=(3,), shuffle=False, limit=5, inner=Inner(width=128, rate=0.25))


def test_plain_data_and_back():
    plain = config.to_dict(CHANGED)
    assert plain["widths"] == [3]
    assert plain["inner"] == {"width": 128, "rate": 0.25}
    assert config.from_dict(Outer, plain) == CHANGED


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        CHANGED.shuffle = True


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"title": "mlp"}, ["title", "not permitted"]),
        ({"name": "cnn"}, ["name = 'cnn'", "'mlp' or 'conv'"]),
        ({"inner": {"width": "64"}}, ["inner.width = '64'", "integer"]),
        ({"inner": {"width": 1.5}}, ["inner.width = 1.5", "integer"]),
        ({"shuffle": 1}, ["shuffle = 1", "boolean"]),
    ],
)
def test_a_refused_value_names_field_value_and_what_is_allowed(data, parts):
    with pytest.raises(ConfigError) as error:
        config.from_dict(Outer, data)
    assert all(part in str(error.value) for part in parts)


def test_flatten_lists_leaves_in_field_order():
    assert list(config.flatten(CHANGED).items()) == [
        ("name", "conv"),
        ("widths", [3]),
        ("shuffle", False),
        ("limit", 5),
        ("inner.width", 128),
        ("inner.rate", 0.25),
    ]


def test_override_changes_only_what_it_names():
    base = Outer()
    changed = config.override(base, {"inner.width": 7, "name": "conv"})
    assert changed.inner == Inner(width=7)
    assert changed == Outer(name="conv", inner=Inner(width=7))
    assert base == Outer()


def test_every_leaf_can_be_overridden():
    assert config.override(Outer(), config.flatten(CHANGED)) == CHANGED


def test_a_typo_is_answered_with_the_nearest_names():
    with pytest.raises(ConfigError, match=r"'inner\.widthx'; did you mean inner\.width"):
        config.override(Outer(), {"inner.widthx": 1})
    with pytest.raises(ConfigError, match=r"known names: name, widths"):
        config.override(Outer(), {"zzz": 1})


def test_a_whole_section_cannot_be_overridden():
    with pytest.raises(ConfigError, match="unknown setting 'inner'"):
        config.override(Outer(), {"inner": {}})


@pytest.mark.parametrize(
    ("item", "name", "value"),
    [
        ("inner.width=128", "inner.width", 128),
        ("inner.rate=1e-3", "inner.rate", 1e-3),
        ("shuffle=false", "shuffle", False),
        ("limit=null", "limit", None),
        ("limit=none", "limit", None),
        ("limit=3", "limit", 3),
        ("widths=[3, 4]", "widths", [3, 4]),
        ("name=conv", "name", "conv"),
    ],
)
def test_assignments_are_typed(item, name, value):
    changes = config.parse_assignments(Outer(), [item])
    assert changes == {name: value}
    assert type(changes[name]) is type(value)
    config.override(Outer(), changes)


@pytest.mark.parametrize("item", ["inner.width", "=3", "inner.depth=3"])
def test_an_assignment_that_sets_nothing_is_refused(item):
    with pytest.raises(ConfigError, match="KEY=VALUE|unknown setting"):
        config.parse_assignments(Outer(), [item])


def test_an_assignment_of_the_wrong_type_is_refused():
    changes = config.parse_assignments(Outer(), ["inner.width=wide"])
    with pytest.raises(ConfigError, match="inner.width = 'wide'"):
        config.override(Outer(), changes)


def test_digest_depends_on_every_leaf():
    digests = {config.digest(Outer())}
    for name, value in config.flatten(CHANGED).items():
        digests.add(config.digest(config.override(Outer(), {name: value})))
    assert len(digests) == 1 + len(config.flatten(CHANGED))


def test_digest_ignores_key_order_and_has_the_asked_length():
    assert config.digest({"a": 1, "b": 2}) == config.digest({"b": 2, "a": 1})
    assert len(config.digest({}, length=8)) == 8
    assert config.digest(Outer()) == config.digest(config.to_dict(Outer()))


def test_digest_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="JSON"):
        config.digest({"rate": float("nan")})
