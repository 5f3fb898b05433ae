"""Kill processes that write an index without warning, and see that nothing is lost, nothing double and nothing wrong.

PYTHONPATH=tests python tests/fault/index_kills.py --kills 100     (part of `make fault`)

Each process indexes a folder, half of which an index holds already in an older state, and compacts it. It is killed at
a random moment, or just before or after a random flush or commit. What it had said to be committed must be there, each
image once and each row right; then another process goes on, and its index must equal that of one never killed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fault.tapping import kill_at

from reid.search.gallery import Gallery, is_index, list_crops, read_snapshot, update, update_index

DIM, SHARD, IMAGES = 32, 40, 300
OPERATIONS = ("replace", "fsync")


def embed(paths: Sequence[str]) -> np.ndarray:
    """Rows by the bytes of the files alone."""
    return np.stack([_row(Path(path).read_bytes()) for path in paths])


def _row(content: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=DIM)
    return (row / np.linalg.norm(row)).astype(np.float32)


def draw(folder: Path) -> tuple[Path, Path]:
    """The folder of crops, and an index of an older state of it: images missing, images since changed and removed."""
    crops, old = folder / "crops", folder / "old"
    crops.mkdir()
    for number in range(IMAGES):
        # Some contents are there several times.
        (crops / f"{number:04d}.jpg").write_bytes(b"%d" % (number % 270))
    for number in range(0, IMAGES, 3):
        (crops / f"{number:04d}.jpg").write_bytes(b"older %d" % number)
    for number in range(50):
        (crops / f"gone_{number:02d}.jpg").write_bytes(b"gone %d" % number)
    hidden = [crops / f"{number:04d}.jpg" for number in range(1, IMAGES, 2)]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    index(old, crops)
    for path in hidden:
        path.with_suffix(".hidden").rename(path)
    for number in range(0, IMAGES, 3):
        (crops / f"{number:04d}.jpg").write_bytes(b"newer %d" % number)
    for path in crops.glob("gone_*"):
        path.unlink()
    return crops, old


def index(path: Path, crops: Path) -> None:
    """What `tools/index.py` does, with a commit after every few images, and compacting."""
    update._BATCH_SIZE, update._COMMIT_SECONDS = 16, 0.0
    gallery = Gallery.open(path) if is_index(path) else Gallery.create(path, model_id="m", dim=DIM, shard_size=SHARD)
    with gallery:
        update_index(gallery, list_crops(crops), embed, progress=False)
        gallery.compact()


def start(path: Path, crops: Path, at: int, before: bool) -> int:
    """Fork a process that indexes, writes the names it has committed to `PATH.said`, and dies at operation `at`."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        sys.stderr = open(path.with_suffix(".err"), "w")  # noqa: SIM115
        said = os.open(path.with_suffix(".said"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        counted = kill_at(at, before, [*((os, name) for name in OPERATIONS), (Gallery, "commit")])
        commit = Gallery.commit

        def committed(self: Gallery, entries: Any = (), *rest: Any, **options: Any) -> None:
            commit(self, entries, *rest, **options)
            os.write(said, "".join(f"{crop.path} {digest.hex()}\n" for crop, digest in entries).encode())

        Gallery.commit = committed  # type: ignore[method-assign]
        index(path, crops)
        path.with_suffix(".count").write_text(str(counted()))
        code = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(process: int, seconds: float | None) -> int:
    """Wait for a process, killed after so many seconds; its exit code."""
    began = time.monotonic()
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if seconds is not None and time.monotonic() - began >= seconds:
            os.kill(process, signal.SIGKILL)
            seconds = None
        time.sleep(0.001)


def faults(path: Path, crops: Path, *, whole: bool) -> list[str]:
    """What is wrong with an index: whole, or just after a kill."""
    snapshot = read_snapshot(path)
    held = {crop.path: digest for crop, digest in zip(snapshot.crops, snapshot.digests, strict=True)}
    found = ["a path is there twice"] if len(held) != len(snapshot.crops) else []
    said_file = path.with_suffix(".said")
    for line in said_file.read_text().splitlines() if said_file.exists() else ():
        name, digest = line.split()
        if held.get(name, b"").hex() != digest:
            found.append(f"{name}: committed and lost")
    if len(set(snapshot.digests)) != len(np.unique(snapshot.rows)):
        found.append("a content has two rows")
    contents = _contents()
    for name, digest, row in zip(held, snapshot.digests, snapshot.read_rows(snapshot.rows), strict=True):
        if row.tobytes() != _row(contents[digest]).tobytes():
            found.append(f"{name}: the features of another image")
    if whole:
        expected = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in crops.iterdir()}
        found += [f"{name} is not as in the folder" for name, _ in sorted(expected.items() ^ held.items())]
        rows = len(snapshot.checksums)
        if rows != len(set(expected.values())):
            found.append(f"{rows} rows for {len(set(expected.values()))} contents")
        with Gallery.open(path) as gallery:
            found += [f"{name}: checksum" for name in gallery.find_corrupt()]
    return found


def _contents() -> dict[bytes, bytes]:
    texts = [b"%d" % n for n in range(IMAGES)] + [b"gone %d" % n for n in range(50)]
    texts += [b"%s %d" % (age, n) for n in range(0, IMAGES, 3) for age in (b"older", b"newer")]
    return {hashlib.sha256(text).digest(): text for text in texts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="index_kills_"))
    crops, old = draw(folder)
    unbroken = folder / "unbroken"
    shutil.copytree(old, unbroken)
    began = time.monotonic()
    if ended(start(unbroken, crops, 0, False), None):
        raise SystemExit(f"the unkilled process failed: {unbroken.with_suffix('.err').read_text()}")
    seconds, operations = time.monotonic() - began, int(unbroken.with_suffix(".count").read_text())
    wrong = faults(unbroken, crops, whole=True)
    if wrong:
        raise SystemExit(f"the unkilled index is wrong: {'; '.join(wrong[:5])}")
    print(f"{seconds:.2f} s, {operations} flushes, renamings and commits unkilled", flush=True)
    moments, killed, bad = random.Random(arguments.seed), 0, 0
    while killed < arguments.kills:
        path = folder / f"kill_{killed}"
        if moments.random() < 0.5:
            shutil.copytree(old, path)
        at = moments.randint(1, operations) if moments.random() < 0.5 else 0
        after = None if at else moments.uniform(0, seconds)
        code = ended(start(path, crops, at, moments.random() < 0.5), after)
        if code == -signal.SIGKILL:
            killed += 1
            wrong = faults(path, crops, whole=False) if is_index(path) else []
            code = ended(start(path, crops, 0, False), None)
            wrong += faults(path, crops, whole=True) if code == 0 else []
        else:
            wrong = []
        if code:
            wrong.append(f"exit code {code}: {path.with_suffix('.err').read_text().strip()}")
        if wrong:
            bad += 1
            print(f"{path}, operation {at}, after {after} s: {'; '.join(wrong[:5])}", flush=True)
        shutil.rmtree(path, ignore_errors=True)
        for left in folder.glob(f"{path.name}.*"):
            left.unlink()
    print(f"{killed} kills while indexing: {killed - bad} with nothing lost, double or wrong")
    shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
