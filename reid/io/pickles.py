"""Pickles of plain values and NumPy arrays, read by a restricted `pickle.Unpickler`.

`find_class` knows only what NumPy arrays are rebuilt by, and answers with classes of this module instead of NumPy's
own: `numpy.dtype.__setstate__` takes flags by which bytes are read as pointers, and `_reconstruct` allocates whatever
size it is given. The base class is the implementation of `pickle.Unpickler` in Python, whose opcodes can be restricted,
rather than the compiled one, which allocates a memo as large as a file claims, hashes nested tuples for hours, and
looks up extension codes without calling `find_class`.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError

MAX_BYTES = 2**26
# A value may be in many places at the cost of one instruction each, so the result is bounded too.
MAX_VALUES = 2_000_000
MAX_DEPTH = 64
MAX_KEY = 4096  # characters
MAX_UNUSUAL_KEYS = 5000
_PLAIN_INT = 2**31  # optimizer states have small integers as keys
_MAX_INT = 2**60


def load_pickle(path: Path) -> Any:
    """Read a pickle of plain values and NumPy arrays without executing anything in it.

    Args:
        path: A pickle of any protocol, including those written by Python 2.

    Returns:
        Dicts with string keys, lists, strings and numbers. Arrays become nested lists, tuples and sets become lists,
        bytes become strings decoded as Latin-1.

    Raises:
        InputError: If the pickle contains anything else, is corrupt, larger than 64 MiB, or has more than 2 million
            values.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes, above the limit of {MAX_BYTES:,}; is it the published file?")
    file = io.BytesIO(path.read_bytes())
    try:
        return _Converter().convert(_Unpickler(file).load())
    except _RefusedError as error:
        raise InputError(
            f"{path}: the pickle contains {error}; only plain values and arrays are read, and nothing in it was "
            "executed; is it the published file?"
        ) from None
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        raise InputError(f"{path}: corrupt, cut short, or not a pickle ({type(error).__name__})") from None


class Keys:
    """A budget for keys of dicts.

    Only the hashes of strings are random. Dicts of numbers or tuples can be made whose keys all collide, which takes
    quadratic time; the hash of a tuple of tuples can take practically forever; and a long string is compared with an
    equal one at every use. So strings are short, and there are few keys of unusual kinds.
    """

    def __init__(self) -> None:
        self._remaining = MAX_UNUSUAL_KEYS

    def accept(self, key: Any) -> bool:
        """Return whether a key can be put into a dict in a short time.

        Args:
            key: Object of any type; it is not hashed here.

        Returns:
            True for strings and bytes of at most 4,096 characters, small integers, booleans and None; True for at most
            5,000 floats, integers of up to 60 bits and short tuples of such values.
        """
        if isinstance(key, str | bytes):
            return len(key) <= MAX_KEY
        if key is None or (isinstance(key, int) and abs(key) < _PLAIN_INT):
            return True
        self._remaining -= 1
        if isinstance(key, tuple):
            return self._remaining >= 0 and len(key) <= 8 and all(type(k) is not tuple and self.accept(k) for k in key)
        return self._remaining >= 0 and (isinstance(key, float) or (isinstance(key, int) and abs(key) < _MAX_INT))


class _RefusedError(Exception):
    """A pickle contains something that is not read."""


class _Dtype:
    """The stand-in for `numpy.dtype`: a code such as "i8", then the byte order that BUILD sets."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        text = code if isinstance(code, str) and len(code) <= 8 else ""
        if text[:1] not in tuple("iufbOUS") or not text[1:].isdecimal():
            raise _RefusedError(f"an array of {_quoted(code)}")
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|")):
            raise _RefusedError("an unusual kind of array")
        self.order = state[1].replace("|", "=")


class _Array:
    """The stand-in for `numpy.ndarray`, whose content BUILD sets."""

    def __init__(self, *_: Any) -> None:
        self.content: Any = []  # an array, or a list for dtype object

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        if not isinstance(dtype, _Dtype):
            raise _RefusedError("an array without a dtype")
        if dtype.code[0] == "O":
            if not isinstance(data, list):
                raise _RefusedError("an array of objects without a list")
            self.content = data
            return self
        # NumPy allows 64 dimensions.
        if (
            not isinstance(shape, tuple)
            or len(shape) > 64
            or not all(type(side) is int and 0 <= side <= MAX_VALUES for side in shape)
        ):
            raise _RefusedError("an array of an unusual shape")
        data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 writes bytes
        if not isinstance(data, bytes):
            raise _RefusedError("an array without bytes")
        self.content = np.frombuffer(data, np.dtype(dtype.order + dtype.code)).reshape(shape, order=order)
        return self


def _quoted(value: Any) -> str:
    # The text of lists in lists can be as long as one likes.
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array().fill(data, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> _Array:
    return _Array().fill(data, dtype, (), "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, by which Python 3 writes bytes in the older protocols."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _RefusedError(f"text to be encoded as {_quoted(encoding)}")
    return text.encode("latin1")


def _empty_bytes(*arguments: Any) -> bytes:
    """`bytes()`, by which Python 3 writes the data of an empty array there."""
    if arguments:
        raise _RefusedError("a call of bytes")
    return b""


_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "bytes"): _empty_bytes for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
)
CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_NAMES = {code: name for name, code in CODES.items()}


class _Dispatch(dict[int, Callable[[Any], None]]):
    """Opcode to method; every other opcode is refused."""

    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise _RefusedError(f"the instruction {_NAMES[code]}")


class _Unpickler(pickle._Unpickler):
    """Unpickles with the opcodes and globals that plain values and arrays need."""

    # What the base class sets, for type checkers.
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")
        self._keys = Keys()
        # Characters in arguments of calls, which a few bytes can repeat.
        self._remaining = 2 * MAX_BYTES

    dispatch = _Dispatch({CODES[name]: pickle._Unpickler.dispatch[CODES[name]] for name in _OPCODES})
    # Sets become lists here, because adding to a set would hash whatever the pickle adds.
    for _name, _like in (("EMPTY_SET", "EMPTY_LIST"), ("ADDITEMS", "APPENDS"), ("FROZENSET", "LIST")):
        dispatch[CODES[_name]] = dispatch[CODES[_like]]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise _RefusedError(f"the global {module}.{name}")
        return _GLOBALS[module, name]

    def _update(self, items: list[Any]) -> None:
        """Set items of the dict on top of the stack."""
        if not all(self._keys.accept(key) for key in items[::2]):
            raise _RefusedError("a mapping with unusual keys")
        if not isinstance(self.stack[-1], dict):
            raise _RefusedError(f"items of a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def _load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def _load_put(self) -> None:
        number = int(self.readline()[:-1])
        if not 0 <= number < _PLAIN_INT:  # the memo is a dict too
            raise _RefusedError("a memo of unusual size")
        self.memo[number] = self.stack[-1]

    def _spend(self, arguments: Any) -> None:
        if not isinstance(arguments, tuple) or len(arguments) > 16:
            raise _RefusedError("an unusual call")
        self._remaining -= sum(len(argument) for argument in arguments if isinstance(argument, str | bytes))
        if self._remaining < 0:
            raise _RefusedError("the same large value in very many places")

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._spend(arguments)
        self.stack[-1] = self.stack[-1](*arguments)

    def _load_build(self) -> None:
        state = self.stack.pop()
        self._spend(state)
        if not isinstance(self.stack[-1], _Dtype | _Array):
            raise _RefusedError(f"a state for a {type(self.stack[-1]).__name__}")
        self.stack[-1].build(state)

    dispatch[CODES["SETITEM"]] = _load_setitem
    dispatch[CODES["SETITEMS"]] = _load_setitems
    dispatch[CODES["DICT"]] = _load_dict
    dispatch[CODES["BYTEARRAY8"]] = _load_bytearray8
    dispatch[CODES["BUILD"]] = _load_build
    dispatch[CODES["REDUCE"]] = _load_reduce
    dispatch[CODES["PUT"]] = _load_put


class _Converter:
    """Converts what was unpickled to plain values, and counts them."""

    def __init__(self) -> None:
        self.remaining = MAX_VALUES

    def convert(self, value: Any, depth: int = 0) -> Any:
        self._spend(1)
        if depth > MAX_DEPTH:
            raise _RefusedError(f"values nested deeper than {MAX_DEPTH}")
        if isinstance(value, _Array):
            return self.convert(self._listed(value.content), depth + 1)
        if isinstance(value, dict):
            return {self._key(key): self.convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.convert(item, depth + 1) for item in value]
        if isinstance(value, bytes):
            self._spend(len(value) // 8)
            return value.decode("latin1")
        if value is None or isinstance(value, str | int | float):
            return value
        raise _RefusedError(f"a {type(value).__name__.strip('_').lower()}")

    def _listed(self, content: Any) -> Any:
        if isinstance(content, np.ndarray):
            self._spend(content.nbytes // 8)
            # An array without elements can still become a list of very many empty lists.
            if math.prod(side or 1 for side in content.shape) > self.remaining:
                raise _RefusedError(f"more than {MAX_VALUES:,} values")
            content = content.tolist()
        return content

    def _key(self, key: Any) -> str:
        return key.decode("latin1") if isinstance(key, bytes) else str(key)

    def _spend(self, values: int) -> None:
        self.remaining -= values
        if self.remaining < 0:
            raise _RefusedError(f"more than {MAX_VALUES:,} values")
