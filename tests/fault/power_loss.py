"""Simulate a power failure at every operation on files, and see that nothing is lost, mixed or taken for whole.

PYTHONPATH=tests python tests/fault/power_loss.py --crashes 8     (part of `make fault`)

Each case writes as the project does while its operations are recorded. For every prefix of them, several states that a
disk may be left in are restored and opened by the function that opens such files: what was said to be safe must be
there, nothing may be half there, and going on must give what an unbroken run gives.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from fault.disk import Disk, State, restore
from PIL import Image

from reid.data.images import cache
from reid.data.synthetic.dataset import write_dataset
from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.io.atomic import is_whole, write_bytes
from reid.io.checkpoint import load_latest, save_checkpoint
from reid.search.gallery import Gallery, is_index, read_snapshot
from reid.search.gallery.crops import Crop, Labels
from reid.training.run_folder import RunFolder

Say = Callable[[Any], None]
SURVIVORS = (("none", "none"), ("all", "none"), ("all", "all"), ("none", "all"))
STEPS = 3
"""How many versions, checkpoints, epochs and files are written; set by `--steps`."""


def version(number: int) -> bytes:
    return b"%d " % number * 3000


@dataclass(frozen=True)
class Case:
    """What is written, and how it is checked.

    Attributes:
        prepare: Makes what is there before, in a folder.
        write: Does what is recorded, and says what is safe.
        faults: Given a folder after a crash, and what had been said, says what is wrong.
    """

    prepare: Callable[[Path], None]
    write: Callable[[Path, Say, Disk], object]
    faults: Callable[[Path, list[Any]], Iterator[str]]


def nothing(folder: Path) -> None:
    """Prepare nothing."""


def only(folder: Path, *names: str) -> Iterator[str]:
    """Files and folders that should not be there any more."""
    left = {path.name for path in folder.iterdir()} - set(names)
    if left:
        yield f"left behind: {', '.join(sorted(left))}"


def write_files(folder: Path, say: Say, disk: Disk) -> None:
    for number in range(STEPS):
        write_bytes(folder / "a.bin", version(number))
        say(number)


def file_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    path = folder / "a.bin"
    held = path.read_bytes() if path.exists() else b""
    least = said[-1] if said else 0
    if held not in (version(least), version(least + 1)) and (said or path.exists()):
        yield f"version {least} is lost or mixed"
    write_bytes(path, b"new")
    if path.read_bytes() != b"new":
        yield "cannot be written"
    yield from only(folder, "a.bin")


def checkpoint(number: int) -> dict[str, Any]:
    return {"model": {"w": torch.full((64,), float(number))}, "config": "", "num_classes": 2, "number": number}


def write_checkpoints(folder: Path, say: Say, disk: Disk) -> None:
    for number in range(STEPS):
        save_checkpoint(folder / "c" / "last.pth", checkpoint(number), previous=folder / "c" / "previous.pth")
        say(number)


def checkpoint_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    paths = folder / "c" / "last.pth", folder / "c" / "previous.pth"
    for number in (None, STEPS):
        if number is not None:
            save_checkpoint(paths[0], checkpoint(number), previous=paths[1])
        content = load_latest(*paths, warn=lambda line: None)
        found = -1 if content is None else content["number"]
        least = number or (said[-1] if said else -1)
        if found < least:
            yield f"checkpoint {found} in place of {least}"
        if content is not None and content["model"]["w"].tolist() != [float(found)] * 64:
            yield "mixed"


CONFIG = "SEED: 0\n"


def write_run(folder: Path, say: Say, disk: Disk) -> None:
    run = RunFolder(folder / "runs" / "run")
    run.open(CONFIG, resume=False)
    say(-1)
    continue_run(run, range(STEPS), say)


def continue_run(run: RunFolder, epochs: range, say: Say) -> None:
    for number in epochs:
        # Before the first checkpoint there is no result, as in a training.
        run.log({"kind": "epoch" if number else "start", "run": "rri", "number": number})
        content = checkpoint(number) | run.log_position()
        save_checkpoint(run.checkpoints / "last.pth", content, previous=run.checkpoints / "previous.pth")
        say(number)
    run.close()


def run_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    run = RunFolder(folder / "runs" / "run")
    resume = (run.path / "config.yaml").exists()
    if said and not resume:
        yield "the run is gone"
        return
    run.open(CONFIG, resume=resume)
    content = load_latest(run.checkpoints / "last.pth", run.checkpoints / "previous.pth", warn=lambda line: None)
    found = -1 if content is None else content["number"]
    if found < (said[-1] if said else -1):
        yield f"checkpoint {found} in place of {said[-1]}"
    if content is None:
        run.start_log()
    else:
        run.cut_log(content["log_lines"], content["log_sha256"])
    continue_run(run, range(found + 1, found + 3), lambda number: None)
    logged = [json.loads(line)["number"] for line in (run.path / "log.jsonl").read_text().splitlines()]
    if logged != list(range(found + 3)):
        yield f"the log holds {logged}"
    yield from only(run.path, "config.yaml", "log.jsonl", "checkpoints", ".lock")
    yield from only(run.checkpoints, "last.pth", "previous.pth")


def files() -> dict[str, bytes]:
    return {f"D/query/{number}.jpg": version(number) for number in range(STEPS)}


def make_archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "d.zip", "w") as archive:
        for name, content in files().items():
            archive.writestr(name, content)


def extract(folder: Path, say: Say, disk: Disk | None = None) -> Path:
    # The name of the result must not depend on the time at which the archive was restored.
    os.utime(folder / "d.zip", (1, 1))
    unpacked = extract_zip(folder / "d.zip", folders=("query",), cache=folder / "cache", progress=False)
    say(unpacked.name)
    return unpacked


def archive_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    if said and not is_whole(folder / "cache" / said[0], ".unpacked"):
        yield "lost"
    unpacked = extract(folder, lambda name: None)
    found = {f"D/query/{path.name}": path.read_bytes() for path in (unpacked / "query").iterdir()}
    if found != files():
        yield f"holds {len(found)} files, {sum(found[name] == files().get(name) for name in found)} whole"
    yield from only(folder / "cache", unpacked.name)


def draw(folder: Path, say: Say, disk: Disk | None = None) -> None:
    def write(partial: Path) -> None:
        (partial / "D" / "query").mkdir(parents=True)
        for name, content in files().items():
            (partial / name).write_bytes(content)

    write_dataset(folder / "sets" / "drawn", {"seed": 0}, {"D/query": len(files())}, write)
    say("drawn")


def drawing_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    if said and not is_whole(folder / "sets" / "drawn", "synthetic.json"):
        yield "lost"
    draw(folder, lambda name: None)
    found = {
        f"D/query/{path.name}": path.read_bytes() for path in (folder / "sets" / "drawn" / "D" / "query").iterdir()
    }
    if found != files():
        yield f"holds {len(found)} files, {sum(found[name] == files().get(name) for name in found)} whole"
    yield from only(folder / "sets", "drawn")


def make_images(folder: Path) -> None:
    for number in range(STEPS):
        Image.new("RGB", (2, 4), (number, 40, 80)).save(folder / f"{number}.png")


def decode(folder: Path, say: Say, disk: Disk | None = None) -> np.ndarray:
    # The name of the array must not depend on where and when the images were restored.
    names = [f"{number}.png" for number in range(STEPS)]
    with (
        contextlib.chdir(folder),
        mock.patch.object(os.path, "abspath", str),
        mock.patch.object(cache, "_CHUNK", 2),
    ):
        for name in names:
            os.utime(name, (1, 1))
        array = cache.decode_images(names, size=(4, 2), cache=folder / "c", in_memory_limit=0, progress=False)
    say("decoded")
    return np.array(array)


def decoding_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    stored = sorted((folder / "c").glob("decoded-*.npy")) if (folder / "c").exists() else []
    whole = [path.read_bytes() for path in stored]
    pixels = decode(folder, lambda name: None)
    if [number for number, *_ in pixels.reshape(STEPS, -1).tolist()] != list(range(STEPS)):
        yield "other pixels"
    if len(list((folder / "c").iterdir())) != 1:
        yield "left behind"
    if said and whole != [path.read_bytes() for path in (folder / "c").iterdir()]:
        yield "lost or damaged"


def row(number: int) -> np.ndarray:
    features = np.zeros(4, dtype=np.float32)
    features[number % 4] = 1
    return features


def add_rows(gallery: Gallery, numbers: range, committed: Callable[[int], None]) -> None:
    for number in numbers:
        digest = b"%032d" % number
        gallery.commit([(Crop(f"{number:03d}.jpg", 1, 1, Labels()), digest)], {digest: row(number)})
        committed(number)


def write_index(folder: Path, say: Say, disk: Disk) -> None:
    manifest = folder / "indexes" / "index" / "manifest.sqlite"
    with Gallery.create(folder / "indexes" / "index", model_id="m", dim=4, shard_size=2) as gallery:
        disk.snapshot(manifest)
        say(-1)

        def committed(number: int) -> None:
            disk.snapshot(manifest)
            say(number)

        add_rows(gallery, range(STEPS), committed)


def index_faults(folder: Path, said: list[Any]) -> Iterator[str]:
    path = folder / "indexes" / "index"
    if said and not is_index(path):
        yield "the index is gone"
        return
    found = len(read_snapshot(path).crops) if is_index(path) else 0
    if said and found not in (said[-1] + 1, said[-1] + 2):
        yield f"{found} images in place of {said[-1] + 1}"
    gallery = Gallery.open(path) if is_index(path) else Gallery.create(path, model_id="m", dim=4, shard_size=2)
    with gallery:
        add_rows(gallery, range(found, found + 2), lambda number: None)
        if gallery.find_corrupt():
            yield "a checksum is wrong"
    snapshot = read_snapshot(path)
    if not np.array_equal(snapshot.read_rows(snapshot.rows), np.stack([row(number) for number in range(found + 2)])):
        yield "other features"


CASES = {
    "files": Case(nothing, write_files, file_faults),
    "checkpoints": Case(nothing, write_checkpoints, checkpoint_faults),
    "run folder": Case(nothing, write_run, run_faults),
    "archive": Case(make_archive, extract, archive_faults),
    "drawing": Case(nothing, draw, drawing_faults),
    "decoding": Case(make_images, decode, decoding_faults),
    "index": Case(nothing, write_index, index_faults),
}


def record(case: Case, folder: Path) -> Disk:
    """Record what a case writes into a new folder."""
    folder.mkdir()
    case.prepare(folder)
    disk = Disk(folder)
    with disk.recording():
        case.write(disk.root, disk.say, disk)
    return disk


def try_case(case: Case, folder: Path, crashes: int, seed: int) -> tuple[int, int, list[str]]:
    """The numbers of prefixes and of different states that were tried, and what was wrong after which."""
    disk, rng, state = record(case, folder / "recorded"), random.Random(seed), State()
    tried, wrong = set[Any](), list[str]()
    for number, operation in enumerate(disk.operations, 1):
        state.apply(operation)
        if number <= disk.before:
            continue
        for kept in [*SURVIVORS, *[("some", "some")] * max(0, crashes - len(SURVIVORS))][:crashes]:
            entries, contents = state.crash(rng, *kept)
            # Many crashes leave the same.
            identity = (repr(sorted((f, sorted(e.items())) for f, e in entries.items() if e)),
                        tuple(sorted((n, c) for n, c in contents.items())), len(state.said))  # fmt: skip
            if identity in tried:
                continue
            tried.add(identity)
            after = folder / "after"
            restore(after, disk.folders, entries, contents)
            try:
                found = list(case.faults(after, state.said))
            except (InputError, OSError, LookupError, ValueError, RuntimeError) as error:
                found = [f"{type(error).__name__}: {error}"]
            wrong += [f"after operation {number} ({operation.kind}), kept {kept}: {line}" for line in found]
            shutil.rmtree(after)
    return len(disk.operations) - disk.before, len(tried), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--crashes", type=int, default=8, help="states per prefix")
    parser.add_argument("--seed", type=int, default=0, help="of the states")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=STEPS, help="versions, checkpoints, epochs and files written")
    arguments = parser.parse_args()
    globals()["STEPS"] = arguments.steps
    folder = Path(tempfile.mkdtemp(prefix="power_loss_"))
    totals, bad = [0, 0], 0
    for name in arguments.cases:
        (folder / name).mkdir()
        prefixes, states, wrong = try_case(CASES[name], folder / name, arguments.crashes, arguments.seed)
        totals = [totals[0] + prefixes, totals[1] + states]
        bad += len(wrong)
        print(f"{name}: {prefixes} prefixes, {states} states, {len(wrong)} wrong", flush=True)
        for line in wrong[:5]:
            print(f"  {line}", flush=True)
    print(f"{totals[0]} prefixes, {totals[1]} states after a power failure: {bad} lost, mixed or left behind")
    shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
