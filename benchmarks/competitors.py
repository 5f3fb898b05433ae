"""The rank evaluations of torchreid and fast-reid, loaded from a clone without installing it.

Only two files are used: rank.py and, if Cython is installed or the clone has it built, rank_cylib/rank_cy.pyx, which is
built in a temporary folder. Both rank a whole matrix of distances.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Peak, in_process, matrix_product
from synthetic_features import load

from reid.errors import InputError

FILES = {
    "torchreid": ("torchreid/metrics/rank.py", "torchreid/reid/metrics/rank.py"),
    "fast-reid": ("fastreid/evaluation/rank.py",),
}


@dataclass(frozen=True)
class Cost:
    """product, distance, ranking: seconds in each round. extra: bytes beyond the features, NaN if unknown."""

    product: list[float]
    distance: list[float]
    ranking: list[float]
    extra: float
    rank1: float
    mAP: float


def rank_file(name: str, clone: Path) -> Path:
    """Find the rank evaluation in a clone; InputError if it is missing."""
    for path in FILES[name]:
        if (clone / path).is_file():
            return clone / path
    raise InputError(f"{clone}: not a clone of {name}, which has {' or '.join(FILES[name])}")


def build(rank: Path, folder: Path) -> Path | None:
    """Return the compiled evaluation of the clone, built in `folder` if necessary; None without Cython."""
    sources = rank.parent / "rank_cylib"
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (sources / f"rank_cy{suffix}").is_file():
            return sources / f"rank_cy{suffix}"
    if importlib.util.find_spec("Cython") is None or not (sources / "rank_cy.pyx").is_file():
        return None
    shutil.copy(sources / "rank_cy.pyx", folder)
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "-q", "-i", "rank_cy.pyx"]
    environment = {**os.environ, "CFLAGS": f"-O3 -w -I{np.get_include()}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    built = next((path for path in folder.iterdir() if path.suffix in (".so", ".pyd")), None)
    if done.returncode or built is None:
        raise InputError(f"{sources}: rank_cy.pyx cannot be built: {(done.stderr or done.stdout).strip()[-300:]}")
    return built


def cost(rank: Path, built: Path | None, features: Path, rounds: int) -> Cost:
    """Time the product, the distances and the ranking of a competitor, alternating, with scores.

    built: None for its evaluation in Python. features: a folder written by `synthetic_features.save`.
    """
    query, gallery = load(features)
    evaluate = _compiled(built) if built else _python(rank)
    labels = query.identities, gallery.identities, query.cameras, gallery.cameras
    some = np.random.default_rng(0).random((2, len(gallery.identities)), dtype=np.float32)
    evaluate(some, labels[0][:2], labels[1], labels[2][:2], labels[3])  # loads what it needs
    seconds: list[tuple[float, float, float]] = []
    with Peak() as peak:
        for _ in range(rounds):
            clock = [time.perf_counter()]
            matrix_product(query.values, gallery.values)
            clock.append(time.perf_counter())
            distances = _distances(query.values, gallery.values)
            clock.append(time.perf_counter())
            curve, average, *_ = evaluate(distances, *labels)
            clock.append(time.perf_counter())
            seconds.append((clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]))
            del distances
    times = [list(column) for column in zip(*seconds, strict=True)]
    return Cost(times[0], times[1], times[2], peak.extra, float(curve[0]), float(np.mean(average)))


def _distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """All squared distances at once, as both compute them: |q|^2 + |g|^2 - 2 q.g in float32."""
    distances = (query * np.float32(-2)) @ gallery.T
    distances += np.einsum("ij,ij->i", query, query)[:, None]
    distances += np.einsum("ij,ij->i", gallery, gallery)
    return distances


def _python(rank: Path) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its compiled part is missing
        module = _load("rank", rank)
    return lambda *arguments: module.evaluate_rank(*arguments, max_rank=50, use_cython=False)


def _compiled(built: Path) -> Callable[..., Any]:
    module = _load("rank_cy", built)
    return lambda *arguments: module.evaluate_cy(*arguments, 50)


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(name: str, clone: Path, features: Path, rounds: int) -> dict[str, Cost | None]:
    """The cost of each evaluation of a competitor, in its own process; None for one that the system killed."""
    rank = rank_file(name, clone)
    with tempfile.TemporaryDirectory() as folder:
        built = build(rank, Path(folder))
        costs = {f"{name}, Python": in_process(cost, rank, None, features, 1)}
        if built is None:
            print(f"{name}: Cython isn't installed, so its compiled evaluation is skipped: pip install Cython")
        else:
            costs[f"{name}, Cython"] = in_process(cost, rank, built, features, rounds)
    return costs
