"""A pickle interpreter that can only build plain containers and inert records.

Python's own one calls whatever a file names and sets whatever attribute it wants. This one knows
the opcodes that data needs; calling goes through :class:`Global`, state through :class:`Record`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

MAX_BYTES = 4 * 2**30
"""Size of a file and of all its tensors together."""

# fmt: off
PLAIN_OPCODES = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "GLOBAL", "STACK_GLOBAL",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
)
# fmt: on
"""Taken over from Python: they move values and look names up through ``find_class``."""


class ForbiddenPickleError(ValueError):
    """The file asks for something that is not data."""


@dataclass(frozen=True)
class Global:
    """A known name: what to build when the file calls it or makes an instance of it."""

    name: str
    build: Callable[..., Any]


@dataclass
class Record:
    """An object of which only the state is kept.

    Attributes:
        kind: name of its class.
        state: its attributes.
    """

    kind: str = ""
    state: dict[str, Any] = field(default_factory=dict)


class RestrictedUnpickler(pickle._Unpickler):
    """Base of the readers; subclasses say which names exist through ``find_class``."""

    allows_persistent_ids = False

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]]

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every name.

        Raises:
            ForbiddenPickleError: always.
        """
        raise ForbiddenPickleError(f"names {module}.{name}")

    def load_call(self) -> None:
        """REDUCE, NEWOBJ: build what a known name stands for."""
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args, {})

    def load_call_with_keywords(self) -> None:
        """NEWOBJ_EX."""
        keywords, args = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args, keywords)

    def _call(self, target: Any, args: Any, keywords: Any) -> Any:
        if not isinstance(target, Global) or not isinstance(args, tuple) or keywords:
            shown = target.name if isinstance(target, Global) else type(target).__name__
            raise ForbiddenPickleError(f"calls {shown} in an unknown way")
        return target.build(*args)

    def load_state(self) -> None:
        """BUILD: keep the state of a record, run no ``__setstate__``, set no attribute."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Record):
            raise ForbiddenPickleError(f"sets the state of a {type(target).__name__}")
        # numpy's tuples are of no use here
        target.state = state if isinstance(state, dict) else {}

    def load_item(self) -> None:
        """SETITEM."""
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_items(self) -> None:
        """SETITEMS."""
        self._set(self._marked())

    def load_dict(self) -> None:
        """DICT."""
        items = self._marked()
        self.stack.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ForbiddenPickleError(f"sets items of a {type(target).__name__}")
        check_keys(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def load_element(self) -> None:
        """APPEND."""
        self._extend([self.stack.pop()])

    def load_elements(self) -> None:
        """APPENDS."""
        self._extend(self._marked())

    def load_list(self) -> None:
        """LIST."""
        self.stack.append(self._marked())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ForbiddenPickleError(f"appends to a {type(target).__name__}")
        target.extend(values)

    def load_members(self) -> None:
        """ADDITEMS."""
        members, target = self._marked(), self.stack[-1]
        if not isinstance(target, set):
            raise ForbiddenPickleError(f"adds to a {type(target).__name__}")
        check_keys(members)
        target.update(members)

    def load_persistent(self) -> None:
        """BINPERSID."""
        if not self.allows_persistent_ids:
            raise ForbiddenPickleError("holds a persistent id")
        self.stack.append(self.persistent_load(self.stack.pop()))

    def _marked(self) -> list[Any]:
        items: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        return items

    def load_unknown(self) -> None:
        """Every other opcode, among them extension codes and those of protocol 0."""
        raise ForbiddenPickleError("holds a pickle opcode that data does not need")


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys of dicts and members of sets that are neither text nor numbers.

    Raises:
        ForbiddenPickleError: there is one.
    """
    # the hash of a deeply nested tuple overflows the interpreter's stack
    if not all(key is None or type(key) in (str, int, float, bool, bytes) for key in keys):
        raise ForbiddenPickleError("holds a key that is neither text nor number")


def _opcode(name: str) -> int:
    code: bytes = getattr(pickle, name)
    return code[0]


def _dispatch() -> dict[int, Callable[[Any], None]]:
    own = RestrictedUnpickler
    table: dict[int, Any] = dict.fromkeys(range(256), own.load_unknown)
    table |= {_opcode(name): pickle._Unpickler.dispatch[_opcode(name)] for name in PLAIN_OPCODES}
    return table | {
        _opcode("REDUCE"): own.load_call,
        _opcode("NEWOBJ"): own.load_call,
        _opcode("NEWOBJ_EX"): own.load_call_with_keywords,
        _opcode("BUILD"): own.load_state,
        _opcode("SETITEM"): own.load_item,
        _opcode("SETITEMS"): own.load_items,
        _opcode("DICT"): own.load_dict,
        _opcode("APPEND"): own.load_element,
        _opcode("APPENDS"): own.load_elements,
        _opcode("LIST"): own.load_list,
        _opcode("ADDITEMS"): own.load_members,
        _opcode("BINPERSID"): own.load_persistent,
    }


RestrictedUnpickler.dispatch = _dispatch()
