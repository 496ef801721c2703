"""Strict, frozen configuration models: dotted overrides, a flat view, a canonical hash.

A config lives beside the code it configures. Unknown keys and wrong types are refused with a
message that names the field, the value received and what is allowed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

import pydantic

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(pydantic.BaseModel):
    """Base of every config: frozen, keyword-only, strict types, unknown keys refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class ConfigError(ValueError):
    """A setting that cannot be used; the message says which, why and what is allowed."""


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON types (tuples become lists)."""
    return config.model_dump(mode="json")


def from_dict(cls: type[ConfigT], data: Mapping[str, Any]) -> ConfigT:
    """Build ``cls`` from plain JSON types.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong type.
    """
    try:
        return cls.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        raise ConfigError(_explain(error)) from None


def flatten(config: Config) -> dict[str, Any]:
    """Return ``{"projector.width": 128, ...}``: dotted names to leaf values, in field order."""

    def walk(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= walk(f"{prefix}.{key}" if prefix else key, inner)
        return flat

    return walk("", to_dict(config))


def override(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Return a copy with dotted fields replaced, e.g. ``{"projector.width": 128}``.

    Args:
        config: the config to start from.
        changes: dotted field names to plain values.

    Raises:
        ConfigError: a name does not exist (the nearest names are listed) or a value is refused.
    """
    data = to_dict(config)
    for name, value in changes.items():
        _check_name(config, name)
        *parents, leaf = name.split(".")
        node = data
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return from_dict(type(config), data)


def parse_assignments(config: Config, assignments: list[str]) -> dict[str, Any]:
    """Turn ``["projector.width=128", "data.source=face"]`` into changes for :func:`override`.

    Values are read as JSON (numbers, true, false, null, lists) unless the field holds text.

    Raises:
        ConfigError: an item has no ``=`` or names an unknown field.
    """
    changes: dict[str, Any] = {}
    for item in assignments:
        name, separator, text = item.partition("=")
        if not separator:
            raise ConfigError(f"--set {item!r}: expected KEY=VALUE, e.g. --set data.shots=4")
        _check_name(config, name)
        changes[name] = _parse(text, annotation(config, name))
    return changes


def annotation(config: Config, name: str) -> Any:
    """Return the declared type of a dotted field."""
    *parents, leaf = name.split(".")
    node = config
    for parent in parents:
        node = getattr(node, parent)
    return type(node).model_fields[leaf].annotation


def digest(value: Any, *, length: int = 16) -> str:
    """Return a hexadecimal hash of plain JSON data or a config, independent of key order."""
    plain = to_dict(value) if isinstance(value, Config) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=length // 2).hexdigest()


def _parse(text: str, kind: Any) -> Any:
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if type(None) in options and text in ("null", "none", "None"):
        return None
    holds_text = str in options or any(isinstance(a, str) for o in options for a in get_args(o))
    if holds_text:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # refused by the model, which names field, value and type


def _check_name(config: Config, name: str) -> None:
    names = list(flatten(config))
    is_section = any(known.startswith(f"{name}.") for known in names)
    if name in names or (is_section and type(None) in get_args(annotation(config, name))):
        return  # a section as a whole only if it may be left out
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(names)}"
    raise ConfigError(f"unknown setting {name!r}; {hint}")


def _explain(error: pydantic.ValidationError) -> str:
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error" and isinstance(item["input"], dict):
            # fields that do not agree: the message names them
            lines.append(f"{field}.{message}" if field else message)
        else:
            lines.append(f"{field} = {item['input']!r}: {message}")
    return "\n".join(lines)
