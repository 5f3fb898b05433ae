"""Every reader takes time in proportion to the size of its input, also for the input that is worst for it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import save_file

from reid.data.datasets.pattern import compile_pattern
from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.io.checkpoint import load_tensors
from reid.io.feature_files import read_features
from reid.io.json_yaml import parse_json, parse_yaml
from reid.io.mat import list_variables, load_variables
from reid.io.npy import NpzReader
from reid.io.pickles import load_pickle
from reid.io.safetensors_files import load_safetensors
from reid.report.history import read_history
from reid.sweep.table import read_rows

COLLIDING = 2**61 - 1  # the hash of every multiple is 0
Reading = Callable[[], object]


def json_text(size: int, folder: Path) -> Reading:
    text = json.dumps({f"{'k' * (i % 50)}{i}": [i, {"a": "b" * 20}] for i in range(size)})
    return lambda: parse_json(text)


def yaml_text(size: int, folder: Path) -> Reading:
    text = "\n".join([*(f"{i}: &a{i} 1" for i in range(size)), *(f"b{i}: {{<<: {{c: *a{i}}}}}" for i in range(size))])
    return lambda: parse_yaml(text)


def plain_pickle(size: int, folder: Path) -> Reading:
    (path := folder / f"{size}.pkl").write_bytes(pickle.dumps({i: [str(i), (i, 0.5)] for i in range(size)}, 2))
    return lambda: load_pickle(path)


def colliding_pickle(size: int, folder: Path) -> Reading:
    # A dict of these keys cannot be made here without taking that time.
    items = b"".join(pickle.dumps(i * COLLIDING, 2)[2:-1] + b"N" for i in range(1, size))
    (path := folder / f"{size}.pkl").write_bytes(b"\x80\2}(" + items + b"u.")
    return lambda: load_pickle(path)


def colliding_memo(size: int, folder: Path) -> Reading:
    # The numbers under which values are remembered are keys of a dict too.
    content = b"]" + b"".join(b"p%d\n" % (i * COLLIDING) for i in range(size)) + b"."
    (path := folder / f"{size}.pkl").write_bytes(content)
    return lambda: load_pickle(path)


def checkpoint(size: int, folder: Path) -> Reading:
    tensor = torch.zeros(2)
    content = {f"layer{i}.weight": tensor[:1] for i in range(size)} | {"state": {i: {"step": i} for i in range(size)}}
    torch.save(content, path := folder / f"{size}.pth")
    return lambda: load_tensors(path)


def colliding_checkpoint(size: int, folder: Path) -> Reading:
    torch.save({i * COLLIDING: None for i in range(1, size)}, path := folder / f"{size}.pth")
    return lambda: load_tensors(path)


def safetensors(size: int, folder: Path) -> Reading:
    save_file({f"layer{i}.weight": torch.zeros(1) for i in range(size)}, path := folder / f"{size}.safetensors")
    return lambda: load_safetensors(path)


def npz(size: int, folder: Path) -> Reading:
    array = io.BytesIO()
    np.save(array, np.zeros(1))
    with zipfile.ZipFile(path := folder / f"{size}.npz", "w") as archive:
        for i in range(size):
            archive.writestr(f"a{i}.npy", array.getvalue())

    def read() -> None:
        with NpzReader(path) as arrays:
            for name in arrays:
                arrays[name]

    return read


def mat(size: int, folder: Path) -> Reading:
    cells = np.array([f"n{i}" for i in range(size)], dtype=object)
    scipy.io.savemat(path := folder / f"{size}.mat", {"cells": cells, **{f"v{i}": i for i in range(size)}})
    return lambda: [list_variables(path), load_variables(path, ["cells"])]


def feature_table(size: int, folder: Path) -> Reading:
    (folder := folder / str(size)).mkdir()
    for split in ("query", "gallery"):
        np.save(folder / f"{split}.npy", np.zeros((size, 1), np.float32))
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("path", "identity", "camera"), *((f"{i}.jpg", i, 1) for i in range(size))])
    return lambda: read_features(folder)


def archive(size: int, folder: Path) -> Reading:
    with zipfile.ZipFile(path := folder / f"{size}.zip", "w") as file:
        for i in range(size):
            file.writestr(f"other/{i}.jpg", b"")
        file.writestr("../outside", b"")
    return lambda: extract_zip(path, folders=["query"], cache=folder / "cache", progress=False)


def log(size: int, folder: Path) -> Reading:
    (folder := folder / str(size)).mkdir()
    place = {"run": "rri", "stage": "restraint", "correlation": 0.5}
    stage = {"kind": "stage", "epochs": 1, "seconds": 1.0, "train_loss": 1.0, "scores": [], **place}
    final = {"kind": "final", "run": "rri", "scores": []}
    lines = [entry | {"round": i} for i in range(size) for entry in (stage, final)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert len(read_history(folder).rows) == size
    return lambda: read_history(folder)


def sweep(size: int, folder: Path) -> Reading:
    (path := folder / f"{size}.jsonl").write_text("\n".join(json.dumps({"name": str(i)}) for i in range(size)))
    return lambda: read_rows(path)


def names(size: int, folder: Path) -> Reading:
    pattern = compile_pattern("**/{identity}_*-*a*b{camera}c")
    text = "a/" * size + "1_-a" + "-ab" * size
    return lambda: [pattern.fullmatch(text[i:]) for i in range(3)]


# The smallest sizes take some 20 to 50 ms.
READERS: dict[Callable[[int, Path], Reading], int] = {
    json_text: 5000,
    yaml_text: 150,
    plain_pickle: 2500,
    colliding_pickle: 4000,
    colliding_memo: 4000,
    checkpoint: 500,
    colliding_checkpoint: 1200,
    safetensors: 1000,
    npz: 250,
    mat: 600,
    feature_table: 6000,
    archive: 1200,
    log: 1000,
    sweep: 2500,
    names: 2500,
}


def seconds(reading: Reading) -> float:
    start = time.process_time()
    with contextlib.suppress(InputError, ValueError):  # refused: that too must not take long
        reading()
    return time.process_time() - start


@pytest.mark.parametrize(("make", "size"), READERS.items(), ids=[make.__name__ for make in READERS])
def test_time_grows_as_the_input(make: Callable[[int, Path], Reading], size: int, tmp_path: Path) -> None:
    readings = [make(factor * size, tmp_path) for factor in (1, 2, 4)]
    best = [float("inf")] * 3
    for _ in range(4):  # what else the machine does can only lengthen a measurement
        best = [min(old, seconds(reading)) for old, reading in zip(best, readings, strict=True)]
        # Twice the growth of linear time, half of that of quadratic time; below 20 ms nothing is measured.
        if best[2] < 8 * max(best[0], 0.02) and best[2] < 4 * max(best[1], 0.04):
            return
    pytest.fail(f"{size}, {2 * size} and {4 * size} values took {best} seconds")
