"""How many gallery rows are nearer to a query than given ones of its own, exactly: all that a rank needs.

Exact means: by `squared_distances` of the given rows, equal ones by gallery index. The gallery is read a tile at a
time, so it may lie on disk; only the queries and one tile are held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError, unknown_name
from reid.ranking import arrays
from reid.ranking.distance import METRICS
from reid.ranking.exact.counting import QUERY_BITS, Thresholds, count
from reid.ranking.exact.first_pass import approximate, integers_exact, integers_pay, prepare
from reid.ranking.exact.gallery_rows import Source, center_of, stretches
from reid.ranking.exact.refine import Pairs, decide
from reid.ranking.exact.targets import Targets
from reid.ranking.metrics import Work

FIRST_PASSES = ("auto", "float32", "integers")
# Integer products leave more comparisons open than float32 ones. Above this share of all pairs it is quicker to take
# float32 ones at once.
_MOST_RECOMPUTED = 0.01
_ENOUGH_TO_JUDGE = 100_000

# Places in a block of queries and in a tile of the gallery of the pairs to leave out: (first query, queries, first
# gallery row, rows) -> (places of the queries, places of the rows), int64.
LeaveOut = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Nearer:
    """counts: (M,) int64, rows nearer than each target, the left-out ones apart. order: (M,) int64, the target's place
    among those of its query, from 0, by exact distance and index.
    """

    counts: np.ndarray
    order: np.ndarray
    work: Work


def count_nearer(
    query: Any,
    gallery: Any,
    offsets: np.ndarray,
    targets: np.ndarray,
    *,
    leave_out: LeaveOut,
    keep: np.ndarray | None = None,
    metric: str = "euclidean",
    block: int = 1024,
    first_pass: str = "auto",
) -> Nearer:
    """For each query's targets, the gallery rows that are nearer to it.

    query: (Q, D) floating, array or tensor. gallery: (G, D) floating, an array, a memory map, `reid.io.shards.Shards` or a
    tensor on the device of `query`. offsets: (Q + 1,) int64, query i owns targets[offsets[i]:offsets[i + 1]], gallery
    indices. leave_out: pairs that don't count. keep: (G,) bool, rows that count at all; None for all. block: queries
    at once. first_pass: "integers" or "float32" products, or "auto" for the quicker one on this machine.
    Raises InputError for an unknown metric or first pass, a block below 1, widths that differ, rows with NaN or
    infinity or too long for float32, and with `cosine` rows of zeros.
    """
    check_sides(query, gallery, metric, block, first_pass)
    rows, source = Source(query, metric, "query").all(), Source(gallery, metric)
    integers = takes_integers(query, first_pass)
    centre = center_of(rows)
    asked = prepare(rows[:], centre, side="query", integers=integers)
    wanted = Targets(rows, asked, source, centre, offsets, targets)
    order = wanted.order()
    counts = np.zeros(len(targets), dtype=np.int64)
    # In the order of their distances the thresholds of a query are looked up side by side.
    ascending = np.lexsort((wanted.least, wanted.owner))
    owner, least, most = wanted.owner[ascending], wanted.least[ascending], wanted.most[ascending]
    pairs = recomputed = 0
    passes: list[str] = []
    buffers: dict[str, Any] = {}
    block = min(block, 1 << QUERY_BITS)
    for first, stop in stretches(source):
        places = np.arange(first, stop) if keep is None else first + np.flatnonzero(keep[first:stop])
        if not len(places):
            continue
        raw = source[first:stop]
        raw = raw if len(places) == stop - first else arrays.rows_of(raw, places - first)
        tile = prepare(raw, centre, side="gallery", integers=integers, numbers=places)
        for begin in range(0, len(rows), block):
            end = min(begin + block, len(rows))
            own = slice(int(offsets[begin]), int(offsets[end]))
            if own.start == own.stop:
                continue
            part = asked[begin:end]
            found = approximate(part if integers else part.without_limbs(), tile, buffers)
            _blank(found.values, leave_out(begin, end - begin, first, stop - first), places - first, stop - first)
            mine = owner[own] - begin
            norms = part.squared[mine]
            result = count(found, Thresholds(mine, least[own] - norms, most[own] - norms))
            counts[own] += result.nearer
            for threshold, place in result.undecided():
                nearer = decide(wanted, ascending[own][threshold], Pairs(rows, asked, raw, tile, places), place)
                counts[own] += np.bincount(threshold[nearer], minlength=own.stop - own.start)
                recomputed += len(nearer)
            pairs += len(part.squared) * len(tile.squared)
            used = "integers" if found.integers else "float32"
            passes += [used] if used not in passes else []
        # The next tile is prepared in the memory of this one.
        del raw, tile
        if integers and pairs >= _ENOUGH_TO_JUDGE and recomputed > _MOST_RECOMPUTED * pairs:
            integers = False
    counts[ascending] = counts.copy()
    return Nearer(counts, order, Work(pairs, recomputed, ", then ".join(passes)))


def _blank(values: Any, pairs: tuple[np.ndarray, np.ndarray], kept: np.ndarray, width: int) -> None:
    """Make the pairs to leave out infinite."""
    queries, places = pairs
    if len(kept) < width:
        column = np.full(width, -1, dtype=np.int64)
        column[kept] = np.arange(len(kept))
        places = column[places]
        queries, places = queries[places >= 0], places[places >= 0]
    values[arrays.like(queries, values), arrays.like(places, values)] = float("inf")


def takes_integers(query: Any, first_pass: str) -> bool:
    """Whether a first pass of that name uses integers for these queries, where they are.

    Raises InputError where they are asked for and cannot be had.
    """
    device, width = str(query.device) if arrays.is_tensor(query) else "cpu", int(query.shape[1])
    if first_pass == "integers" and not integers_exact(width, device):
        raise InputError(
            f"8-bit integer products of rows of {width} numbers are missing or not exact on this machine ({device}); "
            "take the first pass 'auto' or 'float32'"
        )
    return first_pass == "integers" or (first_pass == "auto" and integers_pay(width, device))


def check_sides(query: Any, gallery: Any, metric: str, block: int, first_pass: str) -> None:
    """Raise InputError for arguments that name nothing, or two sides that cannot be compared."""
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if first_pass not in FIRST_PASSES:
        raise unknown_name("first pass", first_pass, FIRST_PASSES)
    if block < 1:
        raise InputError(f"a block holds at least one query, not {block}")
    if len(query.shape) != 2 or len(gallery.shape) != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features {tuple(query.shape)} and gallery features {tuple(gallery.shape)} must be two matrices of "
            "one width; were they extracted by different models?"
        )
    if not query.shape[1]:
        raise InputError(f"query features {tuple(query.shape)} have no numbers to compare")
    places = [str(side.device) if arrays.is_tensor(side) else "no tensor" for side in (query, gallery)]
    if places[0] != places[1]:
        raise InputError(
            f"query and gallery must be tensors of one device, or neither a tensor, not {places[0]} and {places[1]}"
        )
