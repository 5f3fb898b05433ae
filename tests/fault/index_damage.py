"""Damage the files of an index in many ways, and check that it is refused in one line or gives equal results.

PYTHONPATH=tests python tests/fault/index_damage.py --cases 8100     (part of `make fault`)

Each case copies an index, damages one file and uses the copy: it is read and searched exactly and by FAISS, checked,
and opened for writing. Whatever the damage, features stay in the folder if the index is refused, what a reader refuses
is also found by the check, and after a refusal of nothing the index can still be extended.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import MAX_MESSAGE, InputError, one_line
from reid.search import gallery
from reid.search.gallery import Crop, Gallery, Labels, manifest, manifest_rows

DIM, SHARD, IMAGES = 16, 40, 110
MANIFEST = manifest.MANIFEST_NAME
QUERIES = np.eye(DIM, dtype=np.float32)[:3]
ODD = (
    None,
    -1,
    2**63 - 1,
    -(2**63),
    0.5,
    "",
    "x" * 40,
    "\0",
    "9" * 400,
    b"",
    b"\xff\xfe",
    b"\x80" * 32,
    "[[[",
    '"\\ud800"',
)
COLUMNS = {
    "about": ("name", "value"),
    "contents": ("place", "digest", "checksum"),
    "images": ("path", "digest", "size", "changed", "identity", "camera", "time", "removed"),
}


def make(folder: Path) -> Path:
    """Build an index with images that are removed, deleted or share a content, and with a FAISS index if possible."""
    row = np.random.default_rng(0).normal(size=(IMAGES, DIM))
    rows = (row / np.linalg.norm(row, axis=1, keepdims=True)).astype(np.float32)
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(IMAGES)]
    crops = [
        (
            Crop(f"{n % 9}/c{n % 4}_{n}.jpg", 100 + n, 10**18 + n, Labels(str(n % 9), str(n % 4), str(n))),
            digests[n % 100],
        )
        for n in range(IMAGES)
    ]
    metadata = {"root": "crops", "weights": "demo", "feature": "input", "flip": False, "pattern": "", "faiss_beyond": 5}
    with Gallery.create(folder, model_id="m", dim=DIM, shard_size=SHARD, metadata=metadata) as index:
        index.commit(crops, dict(zip(digests[:100], rows, strict=False)))
        index.commit(deleted=[crops[50][0].path])
        index.set_removed([crops[3][0].path], removed=True)
        if _has_faiss():
            gallery.build_faiss_index(index, kind="flat")
    return folder


@functools.cache
def _has_faiss() -> bool:
    with contextlib.suppress(ImportError):
        import faiss

        return faiss is not None
    return False


def as_first_format(folder: Path) -> Path:
    """Turn an index into one of the first format, which has no digests."""
    with _connect(folder) as connection:
        connection.execute("DELETE FROM about WHERE name = 'digests'")
        connection.execute("PRAGMA user_version = 1")
    return folder


def interrupt(folder: Path) -> Path:
    """Leave an index as a process does that is killed while it commits: with changed pages and a journal to undo it."""
    process = os.fork()
    if not process:
        connection = sqlite3.connect(folder / MANIFEST, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(400):
            values = (f"new/{number}", b"x" * 32, 1, 1, "", "", "", 0)
            connection.execute(f"INSERT INTO images VALUES ({', '.join('?' * 8)})", values)
        connection.execute("UPDATE images SET camera = 'changed by a killed process', size = size + 1")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert (folder / f"{MANIFEST}-journal").stat().st_size > 0
    return folder


def read(folder: Path) -> tuple[Any, ...]:
    """Everything that a reader gets from an index."""
    snapshot = gallery.read_snapshot(folder)
    found = [gallery.search_snapshot(snapshot, QUERIES, 7)]
    search, description = gallery.select_search(snapshot)
    if search is not None:
        found.append(gallery.search_snapshot(snapshot, QUERIES, 7, neighbor_search=search))
    mask = snapshot.filter_mask(["1"], (0.0, 60.0)).tolist()
    features = snapshot.read_rows(snapshot.rows).tobytes()
    return snapshot.crops, snapshot.digests, features, snapshot.metadata, found, description, mask


def check(folder: Path) -> None:
    """What `tools/index.py --check` does."""
    with Gallery.open(folder) as index:
        corrupt = index.find_corrupt()
        if corrupt:
            raise InputError(f"{folder}: {corrupt[0]}")
        snapshot = gallery.read_snapshot(folder)
        if gallery.has_current_faiss_index(snapshot) and not gallery.is_faiss_index_intact(snapshot):
            raise InputError(f"{folder}: FAISS")


def extend(folder: Path) -> tuple[Any, ...]:
    """Add an image, remove it again, and compact."""
    digest = b"n" * 32
    with Gallery.open(folder) as index:
        index.commit([(Crop("new.jpg", 1, 1, Labels()), digest)], {digest: np.eye(DIM, dtype=np.float32)[0]})
        index.commit(deleted=["new.jpg"])
        index.compact()
    snapshot = gallery.read_snapshot(folder)
    return snapshot.crops, snapshot.digests, snapshot.read_rows(snapshot.rows).tobytes()


def attempt(use: Callable[[Path], Any], folder: Path) -> tuple[str, Any]:
    """Return "refused" and the message, "used" and the result, or "traceback" and the traceback."""
    try:
        return "used", use(folder)
    except (InputError, OSError) as error:
        known = isinstance(error, InputError) or error.errno is not None
        text = one_line(error)
        return ("refused" if known and 0 < len(text) < MAX_MESSAGE else "traceback"), text
    except Exception:
        return "traceback", traceback.format_exc()


def judge(
    folder: Path, expected: tuple[Any, ...], extended: tuple[Any, ...], *, sealed: bool = True
) -> tuple[str, str]:
    """Return what came of the use of a damaged index: equal, refused, or the fault; and details."""
    features = sorted(path.name for path in (folder / "features").iterdir()) if (folder / "features").is_dir() else []
    outcome, result = attempt(read, folder)
    checked, details = attempt(check, folder)
    if "traceback" in (outcome, checked):
        return "traceback", str(result if outcome == "traceback" else details)
    if not sealed:
        written, rows = attempt(extend, folder)
        return ("traceback", str(rows)) if written == "traceback" else (outcome, "")
    if outcome == "used" and result != expected:
        return "silently wrong", "reading"
    if outcome == "refused" and checked == "used":
        return "not found by the check", str(result)
    if checked == "refused" and features != sorted(path.name for path in (folder / "features").iterdir()):
        return "features deleted", str(details)
    written, rows = attempt(extend, folder)
    if written == "traceback":
        return "traceback", str(rows)
    # Extending looks neither at the features that are there nor at the FAISS index.
    unneeded = outcome == "refused" and any(word in str(result) for word in ("features", "faiss"))
    if written == "used" and not unneeded and rows != extended:
        return "silently wrong", "extending"
    return ("equal" if outcome == "used" else "refused"), str(result)[:200]


def damage_bytes(path: Path, draw: random.Random) -> str:
    """Damage a file as a disk or a copy might."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    kind = draw.choice(["bit"] * 6 + ["byte", "zeros", "cut", "noise", "swap", "again", "more"])
    length = min(draw.choice((2, 16, 512, 4096)), len(data))
    page, other = (draw.randrange(max(1, len(data) // 4096)) * 4096 for _ in range(2))
    if kind == "bit":
        data[at] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        data[at] = draw.randrange(256)
    elif kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "noise":
        data[at : at + length] = draw.randbytes(len(data[at : at + length]))
    elif kind == "cut":
        del data[at:]
    elif kind == "swap":
        data[page : page + 4096], data[other : other + 4096] = data[other : other + 4096], data[page : page + 4096]
    elif kind == "again":
        data[page : page + 4096] = data[other : other + 4096]
    else:
        data += draw.randbytes(length)
    path.write_bytes(data)
    return f"{path.name}: {kind} at {at}"


def damage_rows(folder: Path, draw: random.Random) -> str:
    """Change, exchange, delete or duplicate rows by SQL."""
    table = draw.choice(("about", "contents", "contents", "images", "images", "images"))
    column = draw.choice(COLUMNS[table])
    key = COLUMNS[table][0]
    kind = draw.choice(("odd", "odd", "exchange", "delete", "flip", "duplicate"))
    with _connect(folder) as connection:
        # The constraints would keep some of the damage out.
        connection.execute("PRAGMA writable_schema = ON")
        keys = [row[0] for row in connection.execute(f"SELECT {key} FROM {table} ORDER BY {key}")]
        one, other = draw.sample(keys, 2)
        read_one = f"SELECT {column} FROM {table} WHERE {key} = ?"
        (value,), (second,) = (connection.execute(read_one, (k,)).fetchone() for k in (one, other))
        with contextlib.suppress(sqlite3.IntegrityError):
            update = f"UPDATE {table} SET {column} = ? WHERE {key} = ?"
            if kind == "odd":
                connection.execute(update, (draw.choice(ODD), one))
            elif kind == "exchange" and column != key:
                with contextlib.suppress(sqlite3.IntegrityError):
                    connection.execute(update, (b"", one))
                connection.execute(update, (value, other))
                connection.execute(update, (second, one))
            elif kind == "delete":
                connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (one,))
            elif kind == "flip":
                connection.execute(update, (_flip(value, draw), one))
            else:
                rest = ", ".join(name if name != key else "?" for name in COLUMNS[table])
                copied = _flip(one, draw)
                connection.execute(f"INSERT INTO {table} SELECT {rest} FROM {table} WHERE {key} = ?", (copied, one))
    return f"{table}.{column}: {kind} {one!r}"


def reseal(folder: Path) -> None:
    """Make the digests right again, as somebody would who builds an index to attack its reader."""
    with contextlib.suppress(Exception), _connect(folder) as connection:
        digests = manifest_rows._table_digests(connection)
        entries = dict(connection.execute("SELECT name, value FROM about WHERE name != 'digests'"))
        text = manifest.json.dumps(digests)
        seal = f"{manifest._digest_entries(entries, text)} {text}"
        connection.execute("INSERT OR REPLACE INTO about VALUES ('digests', ?)", (seal,))


def run(folder: Path, cases: int, seed: int) -> tuple[Counter[str], Counter[str], list[str]]:
    """Damage an index in as many ways; outcomes of manifests, of other files, and descriptions of the faults."""
    draw = random.Random(seed)
    whole = make(folder / "whole")
    first = as_first_format(Path(shutil.copytree(whole, folder / "first")))
    killed = interrupt(Path(shutil.copytree(whole, folder / "killed"))) if hasattr(os, "fork") else whole
    expected = read(whole)
    extended = extend(Path(shutil.copytree(whole, folder / "extended")))
    manifests, others, faults = Counter[str](), Counter[str](), []
    for number in range(cases):
        kind = draw.choice(["file"] * 9 + ["rows"] * 4 + ["hostile"] * 2 + ["first", "journal", "shard", "faiss"])
        source = {"first": first, "journal": killed}.get(kind, whole)
        copy = Path(shutil.copytree(source, folder / "copy"))
        if kind in ("rows", "hostile"):
            what = damage_rows(copy, draw)
            if kind == "hostile":
                reseal(copy)
        else:
            what = damage_bytes(_file(copy, kind, draw), draw)
        outcome, details = judge(copy, expected, extended, sealed=kind not in ("first", "hostile"))
        (others if kind in ("shard", "faiss") else manifests)[outcome] += 1
        if outcome not in ("equal", "refused", "used"):
            faults.append(f"case {number} of seed {seed}, {kind}, {what}: {outcome}: {details}")
        shutil.rmtree(copy)
    return manifests, others, faults


def _file(folder: Path, kind: str, draw: random.Random) -> Path:
    if kind == "journal":
        return draw.choice(sorted(folder.glob(f"{MANIFEST}*")))
    if kind == "shard":
        return draw.choice(sorted((folder / "features").iterdir()))
    found = sorted(folder.glob("faiss-*")) if kind == "faiss" else []
    return found[0] if found else folder / MANIFEST


def _flip(value: Any, draw: random.Random) -> Any:
    if isinstance(value, int):
        return (value ^ (1 << draw.randrange(40))) if value < 2**62 else 0
    data = bytearray(value.encode() if isinstance(value, str) else value or b"\0")
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(5)
    return data.decode(errors="replace") if isinstance(value, str) else bytes(data)


@contextlib.contextmanager
def _connect(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / MANIFEST, isolation_level=None)) as connection:
        yield connection


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=8100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="index_damage_") as folder:
        manifests, others, faults = run(Path(folder), arguments.cases, arguments.seed)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    for name, counts in (("manifests", manifests), ("shards and FAISS files", others)):
        print(f"{counts.total()} damaged {name}: {dict(sorted(counts.items()))}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
