"""Pickles of plain values and NumPy arrays, read by a machine of our own that cannot call anything.

A pickle is a program for a small stack machine, and two of its instructions look up and call any function. The machine
here knows the instructions that make plain values; of the calls it knows the few that rebuild NumPy arrays and numbers,
answers them itself, and refuses every other one. Python's own `pickle` has no part in it.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError

MAX_BYTES = 2**26
# A value may stand in many places at the cost of one instruction each, so what comes out is bounded too.
MAX_VALUES = 2_000_000
MAX_DEPTH = 64

Spend = Callable[[int], None]


def load_pickle(path: Path) -> Any:
    """Dicts, lists, strings and numbers; arrays come as nested lists, tuples as lists, bytes as text.

    Raises InputError for a pickle that asks for anything else, a broken file, one above 64 MiB, and one that unfolds to
    more than 2 million values.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes, above the limit of {MAX_BYTES:,}; is it the published file?")
    try:
        return _Plain().value(_Machine().run(path.read_bytes()))
    except _Refused as error:
        raise InputError(
            f"{path}: the pickle asks {error}; plain values and arrays are all that is read, "
            "so nothing of it was executed; is it the published file?"
        ) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: broken, cut short, or no pickle ({type(error).__name__})") from None


class _Refused(Exception):
    """A pickle asked for something that is not read."""


class _Mark:
    """Where on the stack the items of a collection begin."""


class _Global:
    """A function or class that the pickle names; it is never looked up."""

    def __init__(self, module: str, name: str) -> None:
        if (module, name) not in _CALLS:
            raise _Refused(f"for {module}.{name}")
        self.key = module, name


class _Kind:
    """A pickled dtype: a letter and a size, then the byte order that the pickle sets."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code[:1] not in tuple("iufbOUS") or not code[1:].isdecimal():
            raise _Refused(f"for an array of {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|")):
            raise _Refused("for an unusual kind of array")
        self.order = state[1]

    def read(self, spend: Spend, data: Any, shape: Any, fortran: bool = False) -> Any:
        """The values as nested lists, or one number for the shape (); spend: told how many are to come."""
        if self.code[0] == "O":
            if not isinstance(data, list):
                raise _Refused("for objects that are no list")
            return data
        if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side <= MAX_VALUES for side in shape):
            raise _Refused("for an array of an unusual shape")
        # An array without elements can still be a list of very many empty lists.
        if len(shape) > MAX_DEPTH or math.prod(side or 1 for side in shape) > MAX_VALUES:
            raise _Refused(f"for more than {MAX_VALUES:,} values")
        text = data.text if isinstance(data, _Encoded) else data
        raw = text.encode("latin1") if isinstance(text, str) else text
        if not isinstance(raw, bytes):
            raise _Refused("for an array of something else than bytes")
        spend(len(raw) // 8)
        array = np.frombuffer(raw, dtype=np.dtype(self.order.replace("|", "=") + self.code))
        return array.reshape(shape, order="F" if fortran else "C").tolist()


class _Array:
    """A pickled array, whose content the pickle sets; it is unfolded when everything is read."""

    def __init__(self, *_: Any) -> None:
        self.content: Callable[[Spend], Any] = lambda _: []

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self._set(kind, data, shape, bool(fortran))

    @staticmethod
    def from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
        array = _Array()
        array._set(kind, data, shape, order == "F")
        return array

    def _set(self, kind: Any, data: Any, shape: Any, fortran: bool) -> None:
        if not isinstance(kind, _Kind):
            raise _Refused("for an array of no kind")
        self.content = lambda spend: kind.read(spend, data, shape, fortran)


class _Scalar:
    """A pickled number of NumPy's."""

    def __init__(self, kind: Any, data: Any) -> None:
        if not isinstance(kind, _Kind):
            raise _Refused("for a number of no kind")
        self.content: Callable[[Spend], Any] = lambda spend: kind.read(spend, data, ())


class _Encoded:
    """A text that stands for bytes, as Python 3 writes them in the older kinds of pickle."""

    def __init__(self, text: Any, coding: Any) -> None:
        if coding not in ("latin1", "latin-1"):
            raise _Refused(f"to encode as {str(coding)[:40]!r}")
        if not isinstance(text, str):
            raise _Refused("to encode what is no text")
        self.text = text


def _no_bytes(*arguments: Any) -> bytes:
    """What Python 3 writes for an empty array there."""
    if arguments:
        raise _Refused("to make bytes")
    return b""


_MULTIARRAY: dict[str, Callable[..., Any]] = {"_reconstruct": _Array, "scalar": _Scalar}
_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _Encoded,
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", name): call for core in ("core", "_core") for name, call in _MULTIARRAY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Array.from_buffer for core in ("core", "_core")},
}


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The value that the pickle ends with."""
        for instruction, argument, _ in pickletools.genops(data):
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _VALUES:
                self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise _Refused(f"for the instruction {name}")
        raise ValueError("no end")

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def since_mark(self) -> list[Any]:
        place = next(place for place in range(len(self.stack) - 1, -2, -1) if place < 0 or self.stack[place] is _MARK)
        if place < 0:
            raise IndexError("no mark")
        items = self.pop(len(self.stack) - place)
        return items[1:]

    def add(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _Refused(f"to append to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def put(self, pairs: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise _Refused(f"to set items of a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(_mapping(pairs))

    def name(self, module: Any, name: Any) -> None:
        self.stack.append(_Global(str(module), str(name)))

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _Refused("to call what is no function")
        self.stack.append(_CALLS[function.key](*arguments))

    def build(self) -> None:
        built, state = self.stack[-2], self.stack.pop()
        if not isinstance(built, _Kind | _Array):
            raise _Refused(f"to change a {type(built).__name__.strip('_').lower()}")
        built.build(state)


def _mapping(items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    # The hash of a tuple of tuples of tuples can take for ever.
    if not all(key is None or isinstance(key, str | bytes | int | float) for key in keys):
        raise _Refused("for a mapping with unusual keys")
    return dict(zip(keys, items[1::2], strict=True))


_MARK = _Mark()
_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
# Instruction -> what it does to the machine, given its argument.
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "DICT": lambda m, _: m.stack.append(_mapping(m.since_mark())),
    **{f"TUPLE{n}": lambda m, _, n=n: m.stack.append(tuple(m.pop(n))) for n in (1, 2, 3)},  # type: ignore[misc]
    "APPEND": lambda m, _: m.add(m.pop(1)),
    "APPENDS": lambda m, _: m.add(m.since_mark()),
    "SETITEM": lambda m, _: m.put(m.pop(2)),
    "SETITEMS": lambda m, _: m.put(m.since_mark()),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "ADDITEMS": lambda m, _: m.add(m.since_mark()),
    "FROZENSET": lambda m, _: m.stack.append(m.since_mark()),
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.since_mark(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, place: m.remember(place)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m.memo[place])),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "GLOBAL": lambda m, names: m.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.pop(2)),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
}


class _Plain:
    """Unfolds the stand-ins and counts what comes out."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def value(self, value: Any, depth: int = 0) -> Any:
        self._spend(1)
        if depth > MAX_DEPTH:
            raise _Refused(f"for values nested deeper than {MAX_DEPTH}")
        if isinstance(value, _Array | _Scalar):
            return self.value(value.content(self._spend), depth + 1)
        if isinstance(value, _Encoded):
            return value.text
        if isinstance(value, dict):
            return {self._key(key): self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, bytes):
            self._spend(len(value) // 8)
            return value.decode("latin1")
        if value is None or isinstance(value, str | int | float):
            return value
        raise _Refused(f"for a {type(value).__name__.strip('_').lower()}")

    def _key(self, key: Any) -> str:
        return key.decode("latin1") if isinstance(key, bytes) else str(key)

    def _spend(self, values: int) -> None:
        self.left -= values
        if self.left < 0:
            raise _Refused(f"for more than {MAX_VALUES:,} values")
