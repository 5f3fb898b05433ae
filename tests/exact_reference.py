"""Reference ranking by all distances and a stable sort, without shared code, and inputs that are hard to rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reid.records import Features

Drawn = tuple[np.ndarray, np.ndarray]
Labels = Sequence[int] | np.ndarray
# What each setup of Revisited Oxford and Paris asks for, and what it passes over.
SETUPS = {
    "easy": (["easy"], ["hard", "junk"]),
    "medium": (["easy", "hard"], ["junk"]),
    "hard": (["hard"], ["easy", "junk"]),
}


def features(values: Sequence[object] | np.ndarray, identities: Labels, cameras: Labels) -> Features:
    matrix = np.array(values, dtype=np.float32)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    return Features(matrix, np.array(identities, dtype=np.int64), np.array(cameras, dtype=np.int64))


def folded(terms: np.ndarray) -> np.ndarray:
    """(n, D) float64 -> (n,): padded to a power of two, then halves added onto each other."""
    width = terms.shape[1]
    padded = np.zeros((len(terms), 1 << max(0, width - 1).bit_length()))
    padded[:, :width] = terms
    while padded.shape[1] > 1:
        half = padded.shape[1] // 2
        padded = padded[:, :half] + padded[:, half:]
    return padded[:, 0]


def distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q, D), (G, D) -> (Q, G) float64."""
    wide = np.asarray(gallery).astype(np.float64)
    return np.stack([folded((wide - row) ** 2) for row in np.asarray(query).astype(np.float64)])


def unit(rows: np.ndarray) -> np.ndarray:
    """Divided by the float64 length, then float32: what `cosine` ranks."""
    wide = np.asarray(rows).astype(np.float64)
    return (wide / np.sqrt(folded(wide**2))[:, None]).astype(np.float32)


def sorted_gallery(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q, G) int64: gallery indices by distance, equal ones by index."""
    return np.argsort(distances(query, gallery), axis=1, kind="stable")


def ranks(
    query: np.ndarray, query_labels: np.ndarray, gallery: np.ndarray, gallery_labels: np.ndarray
) -> list[list[int]]:
    """The ranks of the true matches of every query. Labels: (n, 2) identities and cameras."""
    found = []
    for order, (identity, camera) in zip(sorted_gallery(query, gallery), query_labels, strict=True):
        identities, cameras = gallery_labels[order].T
        kept = (identities != -1) & ~((identities == identity) & (cameras == camera))
        found.append((np.flatnonzero(identities[kept] == identity) + 1).tolist())
    return found


def revisited(
    query: np.ndarray, gallery: np.ndarray, lists: Mapping[str, Sequence[Any]], setup: str, metric: str = "euclidean"
) -> tuple[list[float], list[list[float]]]:
    """Sort everything, take out what is passed over, walk down the list.

    Returns each query's average precision, NaN where it has nothing to find, and the precisions at 1, 5 and 10 of the
    others. The lists of each name hold the gallery images of each query.
    """
    if metric == "cosine":
        query, gallery = (v / np.linalg.norm(v.astype(np.float64), axis=1)[:, None] for v in (query, gallery))
    asked, passed = SETUPS[setup]
    precisions, cuts = [], []
    for i, q in enumerate(query.astype(np.float64)):
        order = np.argsort(((gallery.astype(np.float64) - q) ** 2).sum(axis=1), kind="stable")
        gone = {int(g) for name in passed for g in lists[name][i]}
        wanted = {int(g) for name in asked for g in lists[name][i]}
        shown = [g for g in order.tolist() if g not in gone]
        if not wanted:
            precisions.append(float("nan"))
            continue
        area, found, last = 0.0, 0, 1.0
        for rank, g in enumerate(shown, 1):
            found += g in wanted
            area += (g in wanted) / len(wanted) * (last + found / rank) / 2
            last = found / rank
        precisions.append(area)
        end = max(r for r, g in enumerate(shown, 1) if g in wanted)
        cuts.append([sum(g in wanted for g in shown[: min(k, end)]) / min(k, end) for k in (1, 5, 10)])
    return precisions, cuts


def labels(rng: np.random.Generator, rows: int, *, lowest: int, identities: int = 6) -> np.ndarray:
    """(rows, 2) identities `lowest` .. `identities` and cameras 1 .. 3."""
    return np.stack([rng.integers(lowest, identities + 1, rows), rng.integers(1, 4, rows)], axis=1)


def _random(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape)


def _clustered(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    centres = np.random.default_rng(1).normal(size=(7, shape[1]))
    return centres[rng.integers(0, 7, shape[0])] + 0.02 * rng.normal(size=shape)


def _duplicated(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Rows from one stock of eleven: equal ones everywhere, on both sides, in every tile."""
    stock = np.random.default_rng(2).normal(size=(11, shape[1]))
    return stock[rng.integers(0, 11, shape[0])]


def _one_ulp_apart(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One row in float32, of which a few numbers are moved to their neighbors."""
    rows = np.tile(np.random.default_rng(3).normal(size=shape[1]).astype(np.float32), (shape[0], 1))
    places = rng.integers(0, shape[1], shape[0])
    toward = np.where(rng.random(shape[0]) < 0.5, -np.inf, np.inf).astype(np.float32)
    moved = np.flatnonzero(rng.random(shape[0]) < 0.7)
    rows[moved, places[moved]] = np.nextafter(rows[moved, places[moved]], toward[moved])
    return rows.astype(np.float64)


def _offset(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return 3000.0 + rng.normal(size=shape)


def _lengths(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 3, size=(shape[0], 1))


def _heavy(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.clip(rng.standard_cauchy(size=shape), -3e4, 3e4)


def _many_zeros(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """After a ReLU, some rows of zeros alone."""
    rows = np.maximum(rng.normal(size=shape) - 0.5, 0.0)
    rows[rng.random(shape[0]) < 0.3] = 0.0
    return rows


def _constant_rows(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.broadcast_to(rng.integers(-3, 4, (shape[0], 1)).astype(np.float64), shape).copy()


def _whole(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Whole numbers, 0 or 1: most distances occur many times."""
    return rng.integers(0, 2, shape).astype(np.float64)


def _signed_zeros(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.5, 0.0, -0.0)


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "random": _random,
    "clustered": _clustered,
    "duplicated": _duplicated,
    "one ulp apart": _one_ulp_apart,
    "offset": _offset,
    "lengths": _lengths,
    "heavy": _heavy,
    "many zeros": _many_zeros,
    "constant rows": _constant_rows,
    "whole": _whole,
    "signed zeros": _signed_zeros,
}
# What float16 cannot hold.
SIZES = {"tiny": 1e-22, "subnormal": 1e-41, "large": 1e15}


def drawn(
    kind: str, queries: int, gallery: int, width: int, *, seed: int = 0, dtype: type[np.floating] = np.float32
) -> Drawn:
    """Rows of both sides; "tiny", "subnormal" and "large" are random ones times a constant."""
    rng = np.random.default_rng([seed, width, sum(map(ord, kind))])
    make = KINDS.get(kind, _random)
    rows = [make(rng, (number, width)) * SIZES.get(kind, 1.0) for number in (queries, gallery)]
    return rows[0].astype(dtype), rows[1].astype(dtype)
