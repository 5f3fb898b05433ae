"""Ground truth of revisited Oxford and Paris (Radenović et al. 2018).

The published `gnd_roxford5k.pkl` and `gnd_rparis6k.pkl` are pickles; `reid.io.pickles` reads them safely.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.pickles import load_pickle

LISTS = ("easy", "hard", "junk")


@dataclass(frozen=True)
class RevisitedGroundTruth:
    """Ground truth of Q queries in a gallery of G images.

    Attributes:
        images: Names of the G gallery images.
        queries: Names of the Q query images.
        boxes: (Q, 4) float64: left, top, right, bottom in pixels of the region of the query image to search for.
        easy: Q int64 arrays of gallery indices from 0; the three lists of a query are disjoint.
        hard: Same as `easy`, for the hard images.
        junk: Same as `easy`, for the junk images.
    """

    images: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: np.ndarray
    easy: tuple[np.ndarray, ...]
    hard: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]


def read_revisited(path: Path) -> RevisitedGroundTruth:
    """Read `imlist`, `qimlist` and `gnd` (per query `bbx`, `easy`, `hard`, `junk`).

    Args:
        path: A `.pkl` or `.json` file.

    Returns:
        File names, query boxes and relevant images per query.

    Raises:
        InputError: If the file is missing or corrupt, a pickle contains anything but plain values and arrays, or the
            content has another structure.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such ground-truth file")
    if path.suffix == ".pkl":
        content = load_pickle(path)
    elif path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: invalid JSON ({error})") from None
    else:
        raise InputError(f"{path}: a ground truth must be a .pkl or .json file, not {path.suffix!r}")
    return _parse(content, path)


def _parse(content: Any, path: Path) -> RevisitedGroundTruth:
    _require(isinstance(content, dict), path, "a dict with imlist, qimlist and gnd", content)
    for key in ("imlist", "qimlist", "gnd"):
        if key not in content:
            raise InputError(f"{path}: {key} missing; the keys are {', '.join(map(str, content)) or 'none'}")
    images, queries = (_names(content[key], f"{key} of {path}") for key in ("imlist", "qimlist"))
    truths = content["gnd"]
    _require(isinstance(truths, list), path, "a dict whose gnd is a list", truths)
    if len(truths) != len(queries):
        raise InputError(f"{path}: {len(truths)} entries in gnd for {len(queries)} names in qimlist")
    boxes, lists = [], []
    for number, truth in enumerate(truths):
        where = f"{path}: gnd[{number}] ({queries[number]})"
        missing = [key for key in ("bbx", *LISTS) if not isinstance(truth, dict) or key not in truth]
        if missing:
            raise InputError(f"{where}: {' and '.join(missing)} missing")
        box = _numbers(truth["bbx"], f"{where}, bbx")
        if len(box) != 4:
            raise InputError(f"{where}: bbx contains {len(box)} numbers, not 4")
        boxes.append(box)
        lists.append(_indices(truth, len(images), where))
    return RevisitedGroundTruth(
        images, queries, np.array(boxes, dtype=np.float64).reshape(-1, 4), *(
            tuple(query[name] for query in lists) for name in LISTS
        ),
    )  # fmt: skip


def _indices(truth: dict[str, Any], gallery: int, where: str) -> dict[str, np.ndarray]:
    indices, seen = {}, set[int]()
    for name in LISTS:
        numbers = _numbers(truth[name], f"{where}, {name}")
        index = numbers.astype(np.int64)
        if (index != numbers).any() or (len(index) and not 0 <= index.min() <= index.max() < gallery):
            raise InputError(f"{where}: {name} must contain indices from 0 to {gallery - 1}")
        duplicate = seen & set(index.tolist()) or len(set(index.tolist())) < len(index)
        if duplicate:
            raise InputError(f"{where}: an image is in {name} twice or also in another list")
        seen |= set(index.tolist())
        indices[name] = index
    return indices


def _names(values: Any, what: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(name, str) for name in values):
        raise InputError(f"{what}: must be a list of names")
    return tuple(values)


def _numbers(values: Any, what: str) -> np.ndarray:
    """Flatten nested lists of numbers to float64."""
    flat: list[float] = []
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(reversed(value))
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53:
            flat.append(value)
        else:
            raise InputError(
                f"{what}: must be a list of numbers, but contains {type(value).__name__} {str(value)[:40]}"
            )
    return np.array(flat, dtype=np.float64)


def _require(condition: bool, path: Path, expected: str, actual: Any) -> None:
    if not condition:
        raise InputError(f"{path}: must be {expected}, not {type(actual).__name__}")
