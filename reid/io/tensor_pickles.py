"""The pickle in a file of `torch.save`, checked before PyTorch reads it.

PyTorch executes nothing in it, but a few kilobytes can keep its unpickler busy for ever: keys whose hashes collide,
tuples of tuples as keys, a function called over and over with the same large argument, or a bytearray of any size.
The same instructions are interpreted here first, with a placeholder for every object, and what they cost is counted.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch

from reid.io.pickles import CODES, Keys

_LATIN = ("latin1", "latin-1")
_ORDERED, _COUNTER = "collections.OrderedDict", "collections.Counter"
_NAMES = (_ORDERED, _COUNTER, "_codecs.encode", *(f"builtins.{name}" for name in ("bytearray", "set", "complex")))
# PyTorch itself refuses what it does not know under these names.
_PREFIXES = ("torch.", "numpy.")
_ZIP = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5  # magic number, version, system, content, names of the storages


def check_pickles(source: Path | io.BytesIO) -> None:
    """Check the pickles of a file of `torch.save`, in bounded time and without executing anything.

    Args:
        source: What `torch.load` will be called with.

    Raises:
        ValueError: If PyTorch would take too long or too much memory for it.
        pickle.UnpicklingError: If it requests something that neither PyTorch nor this project reads.
        Exception: Bytes that are no checkpoint fail in any way.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(source, "rb")) if isinstance(source, Path) else source
        stack.callback(file.seek, 0)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        start = file.read(len(_ZIP))
        file.seek(0)
        if start == _ZIP:
            _check_archive(torch._C.PyTorchFileReader(file))
        else:
            _check_legacy(file, size)


def _check_archive(reader: Any) -> None:
    if reader.has_record("data.pkl"):
        data = reader.get_record("data.pkl")
        _Checker(io.BytesIO(data), len(data)).load()


def _check_legacy(file: BinaryIO, size: int) -> None:
    """Check the pickles that versions before 1.6 wrote one after the other."""
    for number in range(_LEGACY_PICKLES):
        checker = _Checker(file, size)
        value = checker.load()
        if number == 0 and value != _LEGACY_MAGIC:
            return  # `torch.load` refuses it
    checker.check_keys(value if isinstance(value, list) else [value])


@dataclass(frozen=True)
class _Global:
    """A class or function, known by its name."""

    name: str


@dataclass(eq=False)
class _Object:
    """What a global was called for, or a storage."""

    name: str
    size: int = 0


class _Checker(pickle._Unpickler):
    """Interprets the instructions that PyTorch's own unpickler knows; every other one is refused there."""

    # What the base class sets, for type checkers.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: Any, size: int) -> None:
        super().__init__(file, encoding="utf-8")
        self._keys = Keys()
        self._remaining = 8 * size + 2**19  # values and characters that are arguments of calls

    def check_keys(self, keys: Iterable[Any]) -> None:
        for key in keys:
            # A placeholder has a hash of its own, but what it stands for may be a sequence.
            known = isinstance(key, _Global) or (isinstance(key, _Object) and key.size <= 16)
            if not known and not self._keys.accept(key):
                raise ValueError("a mapping with unusual keys")

    def find_class(self, module: str, name: str) -> _Global:
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if full not in _NAMES and not full.startswith(_PREFIXES):
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {full[:200]}")
        return _Global(full)

    def persistent_load(self, pid: Any) -> _Object:
        fields = pid if isinstance(pid, tuple) else (pid,)
        for field in fields:
            # The last field of the legacy format is a view: name, offset and size.
            self.check_keys(field if isinstance(field, tuple) and len(field) == 3 else (field,))
        return _Object("storage")

    def _spend(self, value: Any) -> int:
        """Count a value with all it contains; what occurs twice counts twice."""
        before, pending = self._remaining, [value]
        while pending:
            item = pending.pop()
            size = len(item) if isinstance(item, str) else item.size if isinstance(item, _Object) else 0
            self._remaining -= 1 + size
            if self._remaining < 0:
                raise ValueError("the same large value in very many places")
            if isinstance(item, list | tuple | set):
                self._remaining -= len(item)
                pending += item if self._remaining >= 0 else ()
            elif isinstance(item, dict):
                pending += item.values()
        return before - self._remaining

    def _call(self, function: Any, arguments: Any) -> _Object:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of a {type(function).__name__}")
        size = self._spend(arguments)
        name, first = function.name, arguments[0] if arguments else None
        if name in ("_codecs.encode", "builtins.bytearray"):
            # bytearray(10**12) is a terabyte of zeros; some encodings take quadratic time.
            if isinstance(first, int) or any(argument not in _LATIN for argument in arguments[1:]):
                raise ValueError(f"an unusual call of {name}")
        elif name in (_ORDERED, _COUNTER, "builtins.set") and isinstance(first, list | tuple):
            pairs = name == _ORDERED and all(isinstance(item, list | tuple) and item for item in first)
            self.check_keys(item[0] if pairs else item for item in first)
        elif name == "torch._tensor._rebuild_from_type_v2":  # calls its first argument
            self._call(first, arguments[2] if len(arguments) > 2 else None)
        return _Object(name, size)

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.append(self._call(self.stack.pop(), arguments))

    def _load_build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if not isinstance(value, _Object) or not isinstance(state, dict | tuple):
            raise ValueError("an unusual state of an object")
        self._spend(state)
        # The last number holds flags, by which NumPy reads bytes as pointers.
        plain = isinstance(state, tuple) and state[2:5] == (None,) * 3 and state[7:] == (0,)
        if value.name == "numpy.dtype" and not plain:
            raise pickle.UnpicklingError("GLOBAL numpy.dtype with an unusual state")

    def _update(self, items: list[Any]) -> None:
        self.check_keys(items[::2])
        target = self.stack[-1]
        if isinstance(target, _Object) and target.name in (_ORDERED, _COUNTER):
            target.size += len(items)
        elif isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise ValueError(f"items of a {type(target).__name__}")

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _unknown(self) -> None:
        raise pickle.UnpicklingError("an instruction that PyTorch does not know")

    _LIKE_PICKLE = (
        *("PROTO", "STOP", "MARK", "GLOBAL", "NONE", "NEWTRUE", "NEWFALSE", "BINPERSID", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
        *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
    )
    _OWN: ClassVar = {"REDUCE": _load_reduce, "NEWOBJ": _load_newobj, "BUILD": _load_build}
    _OWN |= {"SETITEM": _load_setitem, "SETITEMS": _load_setitems}
    dispatch: ClassVar[dict[int, Any]] = dict.fromkeys(range(256), _unknown)


for _name in _Checker._LIKE_PICKLE:
    _Checker.dispatch[CODES[_name]] = pickle._Unpickler.dispatch[CODES[_name]]
for _name, _method in _Checker._OWN.items():
    _Checker.dispatch[CODES[_name]] = _method
