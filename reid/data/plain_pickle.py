"""Pickles of plain values and NumPy arrays, read without executing anything in them.

A pickle may call any function when it is read. The reader here knows the few calls that rebuild NumPy arrays and
numbers, answers them with stand-ins of its own, and refuses every other one.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError


def read_plain_pickle(path: Path) -> Any:
    """Dicts, lists, strings and numbers; arrays come as nested lists, tuples as lists, bytes as text.

    Raises InputError for a pickle that asks for anything else, and for a broken file.
    """
    try:
        return _plain(_PlainValues(io.BytesIO(path.read_bytes()), encoding="latin1").load())
    except _Refused as error:
        raise InputError(
            f"{path}: the pickle asks {error}; plain values and arrays are all that is read, "
            "so nothing of it was executed; is it the published file?"
        ) from None
    except (
        pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError,
        MemoryError, RecursionError, UnicodeError, ImportError,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: broken, cut short, or no pickle ({type(error).__name__})") from None


class _Refused(Exception):
    """A pickle asked for something that is not read."""


class _Call:
    """Stands in for a function or class of NumPy's: what a pickle calls is `function`, and nothing can be set on it."""

    __slots__ = ("_function",)

    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Refused(f"to set {name}")

    def __setstate__(self, state: object) -> None:
        raise _Refused("to change a function")


class _Kind:
    """A pickled dtype: a letter and a size, then the byte order that the pickle sets."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code[:1] not in tuple("iufbOUS") or not code[1:].isdigit():
            raise _Refused(f"for an array of {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|")):
            raise _Refused("for an unusual kind of array")
        self.order = state[1]

    def read(self, data: Any, shape: Any, fortran: bool = False) -> Any:
        """The values as nested lists, or one number for the shape ()."""
        if self.code[0] == "O":
            if not isinstance(data, list):
                raise _Refused("for objects that are no list")
            return data
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        array = np.frombuffer(raw, dtype=np.dtype(self.order.replace("|", "=") + self.code))
        return array.reshape(shape, order="F" if fortran else "C").tolist()


class _Array:
    """A pickled array, whose content the pickle sets."""

    def __init__(self, *_: Any) -> None:
        self.content: Any = []

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Kind):
            raise _Refused("for an array of no kind")
        self.content = kind.read(data, shape, bool(fortran))


def _scalar(kind: _Kind, data: Any) -> Any:
    return kind.read(data, ())


def _from_buffer(data: Any, kind: _Kind, shape: Any, order: str) -> _Array:
    array = _Array()
    array.content = kind.read(data, shape, order == "F")
    return array


def _encode(text: Any, coding: str) -> bytes:
    """What Python 3 writes for bytes in the older kinds of pickle."""
    if coding not in ("latin1", "latin-1"):
        raise _Refused(f"to encode as {str(coding)[:40]!r}")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """What Python 3 writes for an empty array there."""
    if arguments:
        raise _Refused("to make bytes")
    return b""


_MULTIARRAY = {"_reconstruct": _Call(lambda *_: _Array()), "scalar": _Call(_scalar)}
_KNOWN = {
    ("numpy", "ndarray"): _Call(_Array),
    ("numpy", "dtype"): _Call(_Kind),
    ("_codecs", "encode"): _Call(_encode),
    **{(module, "bytes"): _Call(_no_bytes) for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", name): call for core in ("core", "_core") for name, call in _MULTIARRAY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Call(_from_buffer) for core in ("core", "_core")},
}


class _PlainValues(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Refused(f"for {module}.{name}")
        return _KNOWN[module, name]


def _plain(value: Any) -> Any:
    """Dicts, lists, strings and numbers, with the stand-ins unfolded."""
    if isinstance(value, _Array):
        return _plain(value.content)
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("latin1")
    if value is None or isinstance(value, str | int | float):
        return value
    raise _Refused(f"for a {type(value).__name__}")


def _key(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
