"""Power loss, simulated: records what a program does to its files, and makes the states that a crash may leave.

The rules are those that POSIX guarantees, not those of one file system: data that were not flushed may be missing or
half there, and the entry of a folder that was made, renamed or removed may be lost until the folder itself is flushed.
What is flushed stays. A file that SQLite writes is trusted: it is recorded whole, as of each commit.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Entry = tuple[int, str, int | None]
"""Number of the folder, name, and number of the file or folder of this name, None if there is none."""

ROOT = 0
_REAL_OPEN = open


@dataclass(frozen=True)
class Operation:
    """What was done once.

    Attributes:
        kind: "entries", "write", "truncate", "flush" or "said".
        node: The file that was written or the file or folder that was flushed.
        entries: The entries that appear and disappear together.
        offset: Where was written, or the length after a truncation.
        data: What was written, or what the program said.
    """

    kind: str
    node: int = ROOT
    entries: tuple[Entry, ...] = ()
    offset: int = 0
    data: Any = b""


@dataclass
class Disk:
    """A recording of the operations below a folder.

    Attributes:
        root: The folder.
        operations: All of them, in order.
        folders: Numbers of the nodes that are folders.
        before: Number of the first operations, which only describe what was there before.
    """

    root: Path
    operations: list[Operation] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._lock = threading.RLock()
        self._names: dict[str, int] = {str(self.root): ROOT}
        self._inodes: dict[int, int] = {os.stat(self.root).st_ino: ROOT}
        self._count = ROOT
        for parent, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                self._made(os.path.join(parent, name))
        self._flush_all()
        self.before = len(self.operations)

    def say(self, value: Any) -> None:
        """Record that the program has said something to be safe."""
        self._add(Operation("said", data=value))

    def snapshot(self, path: Path) -> None:
        """Record the present content of a file, flushed, that is written by other means."""
        with self._lock:
            name = str(path)
            if name not in self._names:
                self._made(name)
                self._add(Operation("flush", self._names[os.path.dirname(name)]))
            node = self._names[name]
            self._add(Operation("replace", node, data=path.read_bytes()))

    def _add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)

    def _flush_all(self) -> None:
        for name, node in list(self._names.items()):
            if node not in self.folders:
                self._add(Operation("write", node, data=Path(name).read_bytes()))
            self._add(Operation("flush", node))

    def _entry(self, name: str, node: int | None) -> Entry:
        return self._names[os.path.dirname(name)], os.path.basename(name), node

    def _made(self, name: str) -> None:
        self._count += 1
        status = os.lstat(name)
        self._names[name] = self._inodes[status.st_ino] = self._count
        if stat.S_ISDIR(status.st_mode):
            self.folders.add(self._count)
        self._add(Operation("entries", entries=(self._entry(name, self._count),)))

    def _moved(self, source: str, target: str) -> None:
        node = self._names[source]
        if self._names.get(target) == node:
            return
        self._add(Operation("entries", entries=(self._entry(source, None), self._entry(target, node))))
        for name in [name for name in self._names if name == source or name.startswith(source + os.sep)]:
            self._names[target + name[len(source) :]] = self._names.pop(name)

    def _linked(self, source: str, target: str) -> None:
        self._names[target] = self._names[source]
        self._add(Operation("entries", entries=(self._entry(target, self._names[source]),)))

    def _removed(self, name: str) -> None:
        self._add(Operation("entries", entries=(self._entry(name, None),)))
        del self._names[name]

    def _flushed(self, descriptor: int) -> None:
        node = self._inodes.get(os.fstat(descriptor).st_ino)
        if node is not None:
            self._add(Operation("flush", node))

    def _path(self, path: Any, folder: int | None = None) -> str | None:
        """The absolute name of a path below the root, or None."""
        if not isinstance(path, str | os.PathLike):
            return None
        base = os.readlink(f"/proc/self/fd/{folder}") if folder is not None else os.getcwd()
        name = os.path.normpath(os.path.join(base, os.fspath(path)))
        return name if name.startswith(str(self.root) + os.sep) else None

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this process does inside the block through Python's functions."""
        with contextlib.ExitStack() as stack:

            def patch(holder: Any, name: str, replacement: Callable[..., Any]) -> None:
                stack.enter_context(mock.patch.object(holder, name, replacement))

            for holder in (builtins, io):
                patch(holder, "open", self._open)
            patch(os, "open", self._os_open(os.open))
            patch(os, "fsync", self._tapped(os.fsync, lambda descriptor: self._flushed(descriptor)))
            patch(os, "mkdir", self._tapped(os.mkdir, self._one(self._made)))
            for name in ("unlink", "remove", "rmdir"):
                patch(os, name, self._tapped(getattr(os, name), self._one(self._removed)))
            for name in ("rename", "replace"):
                patch(os, name, self._tapped(getattr(os, name), self._two(self._moved)))
            patch(os, "link", self._tapped(os.link, self._two(self._linked)))
            yield

    def _tapped(self, real: Callable[..., Any], record: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                result = real(*arguments, **options)
                record(*arguments, **options)
            return result

        return call

    def _one(self, record: Callable[[str], None]) -> Callable[..., None]:
        def tell(path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
            name = self._path(path, dir_fd)
            if name is not None:
                record(name)

        return tell

    def _two(self, record: Callable[[str, str], None]) -> Callable[..., None]:
        def tell(source: Any, target: Any, **_: Any) -> None:
            names = self._path(source), self._path(target)
            if names[0] is not None and names[1] is not None:
                record(names[0], names[1])

        return tell

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *rest: Any, dir_fd: int | None = None, **options: Any) -> int:
            name = self._path(path, dir_fd) if flags & os.O_CREAT else None
            with self._lock:
                existed = name is None or os.path.lexists(name)
                descriptor = real(path, flags, *rest, dir_fd=dir_fd, **options)
                if name is not None and not existed:
                    self._made(name)
            return descriptor

        return call

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        name = self._path(file)
        if name is None or not set(mode) & set("wxa+"):
            return _REAL_OPEN(file, mode, buffering, *rest, **options)
        with self._lock:
            existed = os.path.lexists(name)
            raw = _RecordedFile(file, mode.replace("b", "").replace("t", ""), opener=options.pop("opener", None))
            if not existed:
                self._made(name)
            raw.record, node = self._add, self._inodes[os.fstat(raw.fileno()).st_ino]
            raw.node, raw.appends = node, "a" in mode
            if existed and "w" in mode:
                self._add(Operation("truncate", node))
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *rest, **options)


class _RecordedFile(io.FileIO):
    record: Callable[[Operation], None]
    node: int
    appends: bool

    def write(self, data: Any) -> int:
        offset = os.fstat(self.fileno()).st_size if self.appends else self.tell()
        count = super().write(data)
        self.record(Operation("write", self.node, offset=offset, data=bytes(memoryview(data).cast("B")[:count])))
        return count

    def truncate(self, size: int | None = None) -> int:
        length = super().truncate(size)
        self.record(Operation("truncate", self.node, offset=length))
        return length


@dataclass
class State:
    """What a disk holds after some of the operations: durably, and pending until it is flushed."""

    entries: dict[int, dict[str, int]] = field(default_factory=dict)
    pending: list[tuple[Entry, ...]] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    unflushed: dict[int, list[Operation]] = field(default_factory=dict)
    said: list[Any] = field(default_factory=list)

    def apply(self, operation: Operation) -> None:
        """Go on by one operation."""
        if operation.kind == "said":
            self.said.append(operation.data)
        elif operation.kind == "entries":
            self.pending.append(operation.entries)
        elif operation.kind == "flush":
            done = [change for change in self.pending if any(entry[0] == operation.node for entry in change)]
            self.pending = [change for change in self.pending if change not in done]
            _enter(self.entries, done)
            content = self.contents.get(operation.node, b"")
            self.contents[operation.node] = _written(content, self.unflushed.pop(operation.node, []))
        elif operation.kind == "replace":
            self.contents[operation.node] = operation.data
        else:
            self.unflushed.setdefault(operation.node, []).append(operation)

    def crash(self, rng: random.Random, entries: str, data: str) -> tuple[dict[int, dict[str, int]], dict[int, bytes]]:
        """The entries and contents that are found afterwards.

        Args:
            rng: Chooses where "some" survive.
            entries: Which pending entries survive: "all", "none" or "some".
            data: Which data that were not flushed survive: "all", "none" or "some".
        """
        kept = {folder: dict(names) for folder, names in self.entries.items()}
        _enter(
            kept, [change for change in self.pending if entries == "all" or (entries == "some" and rng.random() < 0.5)]
        )
        contents = dict(self.contents)
        for node, writes in self.unflushed.items():
            if data != "none":
                survivors = list(writes)
                if data == "some":
                    survivors = writes[: rng.randint(0, len(writes))]
                    if survivors and survivors[-1].kind == "write":
                        last = survivors.pop()
                        half = last.data[: rng.randint(0, len(last.data))]
                        survivors.append(Operation("write", node, offset=last.offset, data=half))
                contents[node] = _written(contents.get(node, b""), survivors)
        return kept, contents


def _enter(entries: dict[int, dict[str, int]], changes: list[tuple[Entry, ...]]) -> None:
    for change in changes:
        for folder, name, node in change:
            if node is None:
                entries.setdefault(folder, {}).pop(name, None)
            else:
                entries.setdefault(folder, {})[name] = node


def _written(content: bytes, operations: list[Operation]) -> bytes:
    for operation in operations:
        if operation.kind == "truncate":
            content = content[: operation.offset].ljust(operation.offset, b"\0")
        else:
            end = operation.offset + len(operation.data)
            content = content[: operation.offset].ljust(operation.offset, b"\0") + operation.data + content[end:]
    return content


def restore(
    folder: Path, folders: set[int], entries: dict[int, dict[str, int]], contents: dict[int, bytes], node: int = ROOT
) -> None:
    """Write the state of a disk into a new folder."""
    folder.mkdir()
    for name, child in entries.get(node, {}).items():
        if child in folders:
            restore(folder / name, folders, entries, contents, child)
        else:
            (folder / name).write_bytes(contents.get(child, b""))
