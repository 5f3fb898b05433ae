"""Kill processes that draw, extract and decode without warning, and see that the next one goes on as if alone.

PYTHONPATH=tests python tests/fault/cache_kills.py --kills 100     (part of `make fault`)

Each process draws a dataset, extracts an archive and decodes images into an empty cache. It is killed at a random
moment, or just before or after a random operation on files; often so is the next. All have the same process number, as
in containers, and different clocks. After one that is not killed, the cache must equal that of a process alone.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from fault.tapping import kill_at

from reid.data.images.cache import decode_images
from reid.data.synthetic.dataset import write_dataset
from reid.data.synthetic.layout import PARTS, plan_images
from reid.data.synthetic.rendering import Renderer
from reid.io.archive import extract_zip

OPERATIONS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")
DRAWN, IMAGES = 20, 150


def prepare(folder: Path) -> None:
    """Draw the images to decode, and pack them."""
    (folder / "images").mkdir(parents=True)
    renderer = Renderer(0)
    content = [renderer.jpeg(spec) for spec in plan_images("tiny", "market", 0)[:DRAWN]]
    with zipfile.ZipFile(folder / "d.zip", "w") as archive:
        for number in range(IMAGES):
            (folder / "images" / f"{number}.jpg").write_bytes(content[number % DRAWN])
            archive.writestr(f"D/query/{number}.jpg", content[number % DRAWN])


def fill(source: Path, cache: Path) -> None:
    """Draw, extract and decode into a cache."""
    specs = [spec for spec in plan_images("tiny", "market", 0) if spec.part == PARTS["query"]][:DRAWN]

    def draw(folder: Path) -> None:
        (folder / "query").mkdir()
        for spec in specs:
            (folder / "query" / spec.name).write_bytes(Renderer(0).jpeg(spec))

    write_dataset(cache / "drawn", {"seed": 0}, {"query": len(specs)}, draw)
    extract_zip(source / "d.zip", folders=("query",), cache=cache, progress=False)
    names = [str(source / "images" / f"{number}.jpg") for number in range(IMAGES)]
    decode_images(names, size=(64, 32), cache=cache, in_memory_limit=0, progress=False)


def start(source: Path, cache: Path, *, at: int = 0, before: bool = False, clock: float = 0.0) -> int:
    """Fork a process of number 1, which fills a cache and dies at operation `at`; returns its real number."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        sys.stderr = open(cache.with_suffix(".err"), "w")  # noqa: SIM115
        now = time.time
        time.time = lambda: now() + clock
        os.getpid = lambda: 1
        counted = kill_at(at, before, [(os, name) for name in OPERATIONS])
        fill(source, cache)
        cache.with_suffix(".count").write_text(str(counted()))
        code = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(process: int, seconds: float | None = None) -> int:
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


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, and its empty folders."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): b"" if path.is_dir() else path.read_bytes() for path in paths}


def faults(whole: dict[str, bytes], cache: Path) -> list[str]:
    """What is missing in a cache, left behind, or different."""
    found = contents(cache)
    return [f"{name}: only once" for name in sorted(whole.keys() ^ found.keys())] + [
        f"{name}: different" for name in sorted(whole.keys() & found.keys()) if whole[name] != found[name]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cache_kills_"))
    source, alone = folder / "source", folder / "alone"
    prepare(source)
    began = time.monotonic()
    if ended(start(source, alone)):
        raise SystemExit(f"the unkilled process failed: {alone.with_suffix('.err').read_text()}")
    seconds, operations = time.monotonic() - began, int(alone.with_suffix(".count").read_text())
    whole = contents(alone)
    print(f"{seconds:.2f} s, {operations} operations on files unkilled", flush=True)
    moments, killed, bad = random.Random(arguments.seed), 0, 0
    while killed < arguments.kills:
        cache, code = folder / f"kill_{killed}", -signal.SIGKILL
        while code == -signal.SIGKILL and killed < arguments.kills:
            at = moments.randint(1, operations) if moments.random() < 0.5 else 0
            process = start(source, cache, at=at, before=moments.random() < 0.5, clock=moments.choice([0, 3600, -3600]))
            code = ended(process, None if at else moments.uniform(0, seconds))
            killed += code == -signal.SIGKILL
        if code in (0, -signal.SIGKILL):
            code = ended(start(source, cache))
        wrong = faults(whole, cache) if code == 0 else [f"exit code {code}: {cache.with_suffix('.err').read_text()}"]
        if wrong:
            bad += 1
            print(f"{cache}: {'; '.join(wrong[:5])}", flush=True)
        shutil.rmtree(cache, ignore_errors=True)
    print(f"{killed} kills while drawing, extracting and decoding: {bad} caches not as if never killed")
    shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
