"""The commands into whose calls `injections.py` puts errors, what they start from, and what their results are.

Everything lies in one folder: `market`, `crops`, `run` and so on, which the commands only read, and `trial`, in which
they work and which is made anew from `start/NAME` for each of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fault.kills import TINY, unlike
from served import encode_image, person

from reid.config import build, load_config
from reid.data.images.cache import decode_images
from reid.io.checkpoint import load_checkpoint, save_checkpoint
from reid.io.safetensors_files import load_safetensors
from reid.search.gallery import has_current_faiss_index, is_index, load_faiss_index, read_snapshot

ROOT = Path(__file__).parents[2]
CONFIG = ("--config-file", str(ROOT / "configs" / "demo_synthetic.yaml"))
INDEX = ("../crops", "--index", "index", "--weights", "../run/checkpoints/rri_last.pth", "--pattern", "market1501")
SEARCH = (
    *("../crops/0002_c1s1_000102_00.png", "--index", "../start/index/index"),
    *("--output", "page.html", "--json", "found.json"),
)
# The whole drawn dataset: the few images that are kept of it hold too few pairs.
CALIBRATION = (
    *("--weights", "model.pth", "--output", "c.json", "--rates", "0.3", "--replicates", "20"),
    *("DATASETS.ROOT", "../start/drawn/drawn"),
)
WEIGHTS = ("--weights", "../run/checkpoints/rri_last.pth")
ZIPPED = ("DATASETS.ROOT", "../zip")
SYNTHETIC = ("DATASETS.NAME", "synthetic", "DATASETS.SYNTHETIC.SIZE", "tiny", "DATASETS.STRICT", "True")
KEPT = {"bounding_box_train": 16, "query": 4, "bounding_box_test": 12}  # images of each folder
MARKET = ("DATASETS.NAME", "market1501", "DATASETS.ROOT", "../market", "DATASETS.STRICT", "False")
SMALL = (*TINY, *MARKET, "STEP0.EPOCHS", "1", "SOLVER.BATCH_SIZE", "8", "RRI.FINAL_RESTRAINT", "False")
# Names under which files are written before they are renamed, locks, and the manifest of an index that is not created
# completely: no results.
TEMPORARY = (".", "manifest.sqlite")
# Commands for which any network will do.
UNTRAINED = {"indexing", "rereading", "removal", "FAISS", "search"}


def store_decoded() -> None:
    """Store decoded images, which are otherwise kept in memory as they are so few."""
    assert decode_images.__kwdefaults__
    decode_images.__kwdefaults__["in_memory_limit"] = 0


@dataclass(frozen=True)
class Scenario:
    """A command.

    tool: name of a command; start: folder under `start` that it finds, or none; cache: REID_CACHE, or none for the one
    that all share; before: called first; resumes: whether it takes --resume.
    """

    name: str
    tool: str
    arguments: tuple[str, ...]
    start: str = ""
    cache: str = ""
    before: Callable[[], None] | None = None
    resumes: bool = False

    def command(self, folder: Path) -> list[str]:
        """The arguments, with `--resume` for a training that left a run to resume."""
        resume = ["--resume"] if self.resumes and (folder / "run" / "config.yaml").exists() else []
        return [*self.arguments, *resume]


SCENARIOS = (
    Scenario("training", "train", (*CONFIG, *SMALL, "RRI.CONTROL", "True"), resumes=True),
    Scenario("resume", "train", (*CONFIG, *SMALL, "RRI.CONTROL", "True"), "interrupted", resumes=True),
    Scenario("drawing", "dataset", ("--size", "tiny", "--output", "drawn")),
    Scenario("decoding", "evaluate", (*WEIGHTS, "--output", "out", *ZIPPED), cache="cache", before=store_decoded),
    Scenario("synthetic", "evaluate", (*WEIGHTS, "--output", "out", *SYNTHETIC), "synthetic", cache="cache"),
    Scenario("evaluation", "evaluate", (*WEIGHTS, "--output", "out", "--save-features", "--top-k", "5")),
    Scenario("features", "evaluate", ("--features", "../features/features_input.npz", "--output", "out", "--roc")),
    Scenario("extraction", "extract", (*WEIGHTS, "--output", "out", "--shard", "40")),
    Scenario("indexing", "index", INDEX),
    Scenario("rereading", "index", (*INDEX, "--reread"), "older"),
    Scenario("removal", "index", (*INDEX[:3], "--remove", "0001*", "--compact", "--check"), "older"),
    Scenario("FAISS", "index", (*INDEX, "--faiss-beyond", "1"), "index"),
    Scenario("search", "search", SEARCH),
    Scenario("calibration", "calibrate", CALIBRATION, "model"),
    Scenario("packing", "pack", ("../run/checkpoints/rri_last.pth", "packed.safetensors")),
    Scenario("export", "export", (*WEIGHTS, "--output", "network.pt2")),
    Scenario("report", "report", ("run",), "finished"),
    Scenario("diagnosis", "diagnose", (*WEIGHTS, "--output", "out")),
    Scenario("sweep", "sweep", ("--config-file", "tiny.yaml", "--output", "sweep", "--rows", "rows.jsonl"), "sweep"),
)


def prepare(base: Path, chosen: Collection[str], run: Callable[[Scenario, Path], None]) -> None:
    """Make what the chosen commands read; `run` runs one in `trial` and moves that folder."""
    named = {scenario.name: scenario for scenario in SCENARIOS}
    start = base / "start"
    if UNTRAINED.issuperset(chosen):
        config = load_config(Path(CONFIG[1]), SMALL)
        network = build.network(config, num_classes=4)
        content = {"model": network.state_dict(), "config": config.dump(), "num_classes": 4}
        save_checkpoint(base / "run" / "checkpoints" / "rri_last.pth", content)
    else:
        _train(base, start, run, named)
    _draw_crops(base / "crops", run, start, named["indexing"])
    if "features" in chosen:
        run(named["evaluation"], base / "evaluated")
        (base / "evaluated" / "out").rename(base / "features")
    if "synthetic" in chosen:
        run(named["synthetic"], start / "synthetic")
        shutil.rmtree(start / "synthetic" / "out")
    if "sweep" in chosen:
        (start / "sweep").mkdir()
        settings = (*SMALL, "DATASETS.ROOT", str(base / "market"), "OUTPUT_DIR", "runs", "RRI.CONTROL", "False")
        (start / "sweep" / "tiny.yaml").write_text(load_config(Path(CONFIG[1]), settings).dump())
        run(named["sweep"], start / "sweep")


def _train(base: Path, start: Path, run: Callable[[Scenario, Path], None], named: dict[str, Scenario]) -> None:
    """Draw a dataset and train on it: a finished run and an interrupted one."""
    run(named["drawing"], start / "drawn")
    _draw_market(start / "drawn" / "drawn", base / "market")
    shutil.make_archive(str(base / "zip" / "Market-1501-v15.09.15"), "zip", base / "market")
    run(named["training"], start / "finished")
    shutil.copytree(start / "finished" / "run", base / "run")
    (start / "model").mkdir()
    shutil.copy(base / "run" / "checkpoints" / "rri_last.pth", start / "model" / "model.pth")
    shutil.copytree(base / "run", start / "interrupted" / "run")
    _rewind(start / "interrupted" / "run")


def _draw_market(drawn: Path, market: Path) -> None:
    """Keep a few images of few people, as many as possible of each, and no distractors."""
    for name, count in KEPT.items():
        (market / name).mkdir(parents=True)
        people = (path for path in sorted(drawn.glob(f"*/{name}/*.jpg")) if path.name > "0001")
        for path in itertools.islice(people, count):
            shutil.copy(path, market / name)


def _rewind(run: Path) -> None:
    """Put a finished run back to the end of its second stage, as if it had been interrupted there."""
    checkpoints = run / "checkpoints"
    middle = checkpoints / "rri_r01_decorrelate.pth"
    lines = load_checkpoint(middle)["log_lines"]
    log = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(log[:lines]))
    middle.rename(middle.with_name("keep"))
    shutil.copy(checkpoints / "rri_step0.pth", checkpoints / "keep_step0")
    for path in checkpoints.glob("*.pth*"):
        path.unlink()
    (checkpoints / "keep").rename(checkpoints / "rri_last.pth")
    shutil.copy(checkpoints / "rri_last.pth", middle)
    (checkpoints / "keep_step0").rename(checkpoints / "rri_step0.pth")


def _draw_crops(crops: Path, run: Callable[[Scenario, Path], None], start: Path, indexing: Scenario) -> None:
    """Crops and two indexes of them: one complete, and one of an older state that lacks some and holds others."""
    crops.mkdir()

    def draw(identity: int, camera: int, seed: int) -> Path:
        path = crops / f"{identity:04d}_c{camera}s1_{100 * camera + identity:06d}_00.png"
        path.write_bytes(encode_image(person(identity, seed)))
        return path

    gone = [draw(identity, 4, 4) for identity in (1, 2)]
    changed = [draw(identity, 1, 9) for identity in (1, 3)]
    run(indexing, start / "older")
    for path in gone:
        path.unlink()
    for path in changed:
        path.unlink()
    for identity in range(1, 5):
        for camera in range(1, 4):
            draw(identity, camera, camera)
    run(indexing, start / "index")


def results(folder: Path) -> dict[str, Any]:
    """What a folder holds, by name: indexes by their images, checkpoints and JSON by content, other files by digest.

    Raises what their readers raise for a file that is not whole.
    """
    found: dict[str, Any] = {}
    for path, folders, files in os.walk(folder):
        place = Path(path)
        if "manifest.sqlite" in files and is_index(place):
            found[str(place.relative_to(folder))] = _index(place)
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        for file in files:
            if not file.startswith(TEMPORARY) and not file.endswith((".txt", ".pth.sha256")):
                name, content = str((place / file).relative_to(folder)), _content(place / file)
                # The names of decoded images depend on the time at which an archive was unpacked.
                found[f"decoded {content}" if file.startswith("decoded-") else name] = content
    return found


def _content(path: Path) -> Any:
    if path.name.endswith("_previous.pth"):  # of which moment is decided by what went wrong
        return bool(load_checkpoint(path))
    if path.suffix == ".pth":
        return load_checkpoint(path)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".safetensors":
        load_safetensors(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _index(folder: Path) -> dict[str, Any]:
    snapshot = read_snapshot(folder)
    features = snapshot.read_rows(snapshot.rows)
    rows = zip(snapshot.crops, snapshot.digests, features, strict=True)
    # The batch that an image was embedded in shows in the last digits.
    images = {crop.path: [crop.labels, digest.hex(), np.round(row, 4).tolist()] for crop, digest, row in rows}
    if has_current_faiss_index(snapshot):
        images["FAISS"] = load_faiss_index(snapshot)(features[:1], 1).indices.tolist()
    return images


def leftovers(folder: Path) -> Iterator[str]:
    """Temporary files and folders, which a command that succeeds removes after one that failed."""
    for path in folder.rglob(".*"):
        if path.name.endswith((".partial", ".writing")):
            yield f"{path.relative_to(folder)} is left over"


def differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Where two results differ, but for clocks."""
    yield from (f"{name} is there once only" for name in sorted({*expected} ^ {*found}))
    for name in sorted({*expected} & {*found}):
        yield from unlike(expected[name], found[name], name)


def damage(before: dict[str, Any], after: dict[str, Any], complete: dict[str, Any]) -> Iterator[str]:
    """What a failed command lost or left half done: each file is as before, as at the end, or not there yet."""
    yield from (f"{name} is gone" for name in before if name in complete and name not in after)
    for name, value in after.items():
        known = [state[name] for state in (before, complete) if name in state]
        if not known:
            yield f"{name} is neither an old file nor one of the results"
        if isinstance(value, str) and known and value not in known:
            yield f"{name} is neither old nor new"
        if isinstance(value, dict) and name.endswith("index"):
            states = [state for state in known if isinstance(state, dict)]
            for path, entry in value.items():
                if not any(path in state and not [*unlike(state[path], entry, path)] for state in states):
                    yield f"{name}: {path} is neither old nor new"
            missing = {*before.get(name, {})} & {*complete.get(name, {})} - {*value, "FAISS"}
            yield from (f"{name}: {path} is gone" for path in sorted(missing))
