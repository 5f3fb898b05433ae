"""The ground truth of revisited Oxford and Paris (Radenović et al. 2018), read without executing anything in it.

The published `gnd_roxford5k.pkl` and `gnd_rparis6k.pkl` are pickles, which `reid.io.pickles` reads.
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
    """images: names of the G gallery images. queries: names of the Q query images.

    boxes: (Q, 4) float64, left, top, right, bottom in pixels, the part of the query image to be searched for. easy,
    hard, junk: Q arrays each, int64, of gallery indices from 0; no image is in two lists of a query.
    """

    images: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: np.ndarray
    easy: tuple[np.ndarray, ...]
    hard: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]


def read_revisited(path: Path) -> RevisitedGroundTruth:
    """Read `imlist`, `qimlist` and `gnd` (of each query `bbx`, `easy`, `hard`, `junk`) from a `.pkl` or a `.json`.

    Raises InputError for a missing or broken file, a pickle that asks for anything but plain values and arrays, and for
    content of another shape.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such ground-truth file")
    if path.suffix == ".pkl":
        content = load_pickle(path)
    elif path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: no readable JSON ({error})") from None
    else:
        raise InputError(f"{path}: a ground truth is a .pkl or .json file, not {path.suffix!r}")
    return _checked(content, path)


def _checked(content: Any, path: Path) -> RevisitedGroundTruth:
    _want(isinstance(content, dict), path, "a mapping with imlist, qimlist and gnd", content)
    for key in ("imlist", "qimlist", "gnd"):
        if key not in content:
            raise InputError(f"{path}: holds no {key}, but {', '.join(map(str, content)) or 'nothing'}")
    images, queries = (_names(content[key], f"{key} of {path}") for key in ("imlist", "qimlist"))
    truths = content["gnd"]
    _want(isinstance(truths, list), path, "gnd as a list", truths)
    if len(truths) != len(queries):
        raise InputError(f"{path}: {len(truths)} entries in gnd for {len(queries)} names in qimlist")
    boxes, lists = [], []
    for number, truth in enumerate(truths):
        where = f"{path}: gnd[{number}] ({queries[number]})"
        missing = [key for key in ("bbx", *LISTS) if not isinstance(truth, dict) or key not in truth]
        if missing:
            raise InputError(f"{where}: holds no {' and no '.join(missing)}")
        box = _numbers(truth["bbx"], f"{where}, bbx")
        if len(box) != 4:
            raise InputError(f"{where}: bbx holds {len(box)} numbers, not 4")
        boxes.append(box)
        lists.append(_indices(truth, len(images), where))
    return RevisitedGroundTruth(
        images, queries, np.array(boxes, dtype=np.float64).reshape(-1, 4), *(
            tuple(of_query[name] for of_query in lists) for name in LISTS
        ),
    )  # fmt: skip


def _indices(truth: dict[str, Any], gallery: int, where: str) -> dict[str, np.ndarray]:
    found, seen = {}, set[int]()
    for name in LISTS:
        numbers = _numbers(truth[name], f"{where}, {name}")
        index = numbers.astype(np.int64)
        if (index != numbers).any() or (len(index) and not 0 <= index.min() <= index.max() < gallery):
            raise InputError(f"{where}: {name} must hold indices from 0 to {gallery - 1}")
        twice = seen & set(index.tolist()) or len(set(index.tolist())) < len(index)
        if twice:
            raise InputError(f"{where}: an image is in {name} that is there, or in another list, already")
        seen |= set(index.tolist())
        found[name] = index
    return found


def _names(values: Any, what: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(name, str) for name in values):
        raise InputError(f"{what}: a list of names is wanted")
    return tuple(values)


def _numbers(values: Any, what: str) -> np.ndarray:
    """Nested lists of numbers -> flat float64."""
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
                f"{what}: a list of numbers is wanted, this holds {type(value).__name__} {str(value)[:40]}"
            )
    return np.array(flat, dtype=np.float64)


def _want(true: bool, path: Path, wanted: str, found: Any) -> None:
    if not true:
        raise InputError(f"{path}: {wanted} is wanted, this is a {type(found).__name__}")
