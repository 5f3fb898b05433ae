"""Flip single bits of stored files and read them: each must be refused in one line or loaded as if it were unchanged.

`make fault` flips every bit of the small files and a sample of the others. A format is one entry of `FORMATS`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid.errors.command import run_command
from reid.inference import embedder
from reid.io.checkpoint import load_checkpoint, load_latest, save_checkpoint
from reid.io.checksums import write_with_checksum
from reid.io.feature_files import read_features, save_features
from reid.io.safetensors_files import save_safetensors
from reid.io.shards import save_matrix
from reid.records import Features


@dataclass(frozen=True)
class Format:
    """A stored format.

    Attributes:
        write: Creates the files in an empty folder.
        read: Reads them as the project does; returns what a user would get.
        equal: Whether what a changed file gave, the second value, is right for the first, of the unchanged file.
        flipped: Names of the files in which bits are flipped, as a pattern; None for all files.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], Any]
    equal: Callable[[Any, Any], bool]
    flipped: str = "**/*"


@dataclass
class Outcome:
    """What happened to the changed files.

    Attributes:
        counts: Number of changed files by ending: "refused", "equal", "traceback" or "wrong".
        faults: One text for each traceback and wrong value.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def same(first: Any, second: Any) -> bool:
    """Whether two nested values are equal, tensors and arrays bit by bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and same(first.numpy(), second.numpy())
    if isinstance(first, np.ndarray):
        alike = isinstance(second, np.ndarray) and (first.dtype, first.shape) == (second.dtype, second.shape)
        return alike and first.tobytes() == second.tobytes()
    if isinstance(first, Mapping):
        if not isinstance(second, Mapping) or first.keys() != second.keys():
            return False
        return all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


CONTENT: dict[str, Any] = {
    "format": 1,
    "model": {"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(5)},
    "config": "SEED: 1\n",
    "num_classes": 3,
    "position": {"epoch": 4, "losses": [1.5, 2.5]},
}


def _write_two(folder: Path) -> None:
    for epoch in (3, 4):
        content = {**CONTENT, "position": {"epoch": epoch}}
        save_checkpoint(folder / "last.pth", content, previous=folder / "previous.pth")
    # Not a hard link to what is changed.
    assert not (folder / "last.pth").samefile(folder / "previous.pth")


def _epoch(folder: Path) -> int:
    content = load_latest(folder / "last.pth", folder / "previous.pth", lambda line: None)
    assert content is not None and same(content["model"], CONTENT["model"])
    return int(content["position"]["epoch"])


def _read_demo(folder: Path) -> Any:
    with patched(embedder, "DEMO", folder / "demo.safetensors"):
        return load_checkpoint(embedder.checkpoint_path("demo"))


@contextlib.contextmanager
def patched(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


FEATURES = Features(
    np.arange(6, dtype=np.float32).reshape(3, 2), np.array([7, 8, 9]), np.array([1, 2, 1]), ("a.jpg", "b.jpg", "c.jpg")
)


def _write_folder(folder: Path) -> None:
    for split in ("query", "gallery"):
        for number, rows in enumerate((slice(0, 2), slice(2, 3))):
            save_matrix(folder / split / f"{number:06d}.npy", FEATURES.values[rows])
        rows = zip(FEATURES.identities, FEATURES.cameras, FEATURES.paths, strict=True)
        table = "\n".join(["identity,camera,path", *(f"{identity},{camera},{path}" for identity, camera, path in rows)])
        write_with_checksum(folder / f"{split}.csv", table.encode())


def _read_features(path: Path) -> Any:
    query, gallery, name = read_features(path)
    return [
        [np.array(split.values[:]), split.identities, split.cameras, split.paths] for split in (query, gallery)
    ], name


FORMATS: dict[str, Format] = {
    "checkpoint": Format(
        lambda folder: save_checkpoint(folder / "a.pth", CONTENT),
        lambda folder: load_checkpoint(folder / "a.pth"),
        same,
    ),
    "checkpoint without a digest": Format(
        lambda folder: torch.save(CONTENT, folder / "a.pth"), lambda folder: load_checkpoint(folder / "a.pth"), same
    ),
    # Never refused: the one before is used.
    "checkpoint with the one before": Format(
        _write_two, _epoch, lambda whole, epoch: whole == 4 and epoch == 3, flipped="last.pth"
    ),
    "safetensors": Format(
        lambda folder: save_safetensors(folder / "a.safetensors", CONTENT),
        lambda folder: load_checkpoint(folder / "a.safetensors"),
        same,
    ),
    "features (.npz)": Format(
        lambda folder: save_features(folder / "a.npz", FEATURES, FEATURES, feature="input"),
        lambda folder: _read_features(folder / "a.npz"),
        same,
    ),
    # The name of the features is that of the folder.
    "feature shards": Format(_write_folder, lambda folder: _read_features(folder)[0], same),
    "demo model": Format(
        lambda folder: (folder / "demo.safetensors").write_bytes(embedder.DEMO.read_bytes()), _read_demo, same
    ),
}


def flip(format: Format, folder: Path, limit: int, seed: int = 0) -> Outcome:
    """Flip bits of a format's files, one at a time.

    Args:
        format: Format to try.
        folder: Empty folder to work in.
        limit: Number of bits to flip, chosen at random where the files have more.
        seed: Seed of the choice.

    Returns:
        What happened.
    """
    format.write(folder)
    files = {path: path.read_bytes() for path in sorted(folder.glob("**/*")) if path.is_file()}
    flipped = [path for path in files if path.match(format.flipped) or format.flipped == "**/*"]
    ends = np.cumsum([8 * len(files[path]) for path in flipped])
    bits = np.arange(ends[-1])
    whole, outcome = format.read(folder), Outcome()
    signatures: dict[Path, Any] = {}
    _restore(folder, files, signatures)
    if len(bits) > limit:
        bits = np.sort(np.random.default_rng(seed).choice(len(bits), limit, replace=False))
    for number in bits.tolist():
        place = int(np.searchsorted(ends, number, side="right"))
        path, bit = flipped[place], number - int(ends[place]) + 8 * len(files[flipped[place]])
        _flip(path, bit)
        signature = _signature(path)
        ending, detail = _read(format, folder, whole)
        if _signature(path) == signature:
            _flip(path, bit)
            signatures[path] = _signature(path)
        _restore(folder, files, signatures)
        outcome.counts[ending] += 1
        if ending in ("traceback", "wrong"):
            outcome.faults.append(f"{path.relative_to(folder)}, byte {bit // 8}, bit {bit % 8}: {ending}: {detail}")
    return outcome


def _flip(path: Path, bit: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(bit // 8)
        value = file.read(1)[0] ^ 1 << bit % 8
        file.seek(bit // 8)
        file.write(bytes([value]))


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _restore(folder: Path, files: Mapping[Path, bytes], signatures: dict[Path, Any]) -> None:
    """Undo what reading may have done: replaced, removed or new files."""
    for path in folder.glob("**/*"):
        if path.is_file() and path not in files:
            path.unlink()
    for path, data in files.items():
        if signatures.get(path) != _signature(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            signatures[path] = _signature(path)


def _read(format: Format, folder: Path, whole: Any) -> tuple[str, str]:
    found, printed = list[Any](), io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = run_command(lambda: found.append(format.read(folder)))
    except Exception:
        return "traceback", traceback.format_exc(limit=-3)
    if code == 0:
        return ("equal", "") if format.equal(whole, found[0]) else ("wrong", f"{found[0]}"[:300])
    line = printed.getvalue().rpartition("error: ")[2]
    return ("refused", "") if code == 2 and line.count("\n") == 1 else ("traceback", printed.getvalue())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=20_000, help="bits flipped in each format, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(FORMATS)} (default: all)")
    arguments = parser.parse_args()
    bad = 0
    for name in arguments.formats or FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = flip(FORMATS[name], Path(folder), arguments.flips, arguments.seed)
        counts = ", ".join(
            f"{outcome.counts[ending]:,} {ending}" for ending in ("refused", "equal", "traceback", "wrong")
        )
        print(f"{name}: {outcome.counts.total():,} bits flipped one at a time: {counts}", flush=True)
        print(*outcome.faults[:5], sep="\n", end="\n" * bool(outcome.faults))
        bad += len(outcome.faults)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
