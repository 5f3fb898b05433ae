"""Exact retrieval evaluation after the Market-1501 protocol (Zheng et al. 2015), counting instead of sorting.

Exact: the ranking of the squared distances of the given features in float64, summed in a fixed order, equal ones by
gallery index. Neither the block size nor the number of threads nor the device changes it.

Gallery images of a query's identity by another camera are its true matches. Those by the query's own camera, and all
images of identity -1, are junk: removed without rank cost. The rest, distractors of identity 0 too, are wrong answers.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.ranks import LeaveOut, count_nearer
from reid.ranking.metrics import Ranking
from reid.ranking.protocols.market import divide
from reid.records import JUNK, Features, Scores


def evaluate(
    query: Features,
    gallery: Features,
    *,
    metric: str = "euclidean",
    max_rank: int = 50,
    block: int = 1024,
    first_pass: str = "auto",
) -> Scores:
    """CMC, mAP (rectangle and trapezoid) and mINP of ranking the gallery for every query.

    The values may be arrays, memory maps, `reid.io.shards.Shards` or tensors of one device; the gallery is read tile by
    tile. metric: `euclidean`, or `cosine`: Euclidean between rows divided by their float64 length. max_rank: length of
    the CMC curve, cut to the gallery's size. block: queries compared at once. first_pass: "float32" or "integers", see
    `reid.ranking.exact.first_pass`; "auto" takes the quicker one, and the result is the same.
    Queries without a true match are left out of every mean but that of mAP_trapezoid, where they count as 0; a warning
    tells their number.
    Raises InputError for an empty side, widths that differ, a query of identity 0 or -1, rows with NaN or infinity, and
    where no query is left (telling which rule removed them).
    """
    if max_rank < 1:
        raise InputError(f"the CMC curve needs max_rank >= 1, not {max_rank}")
    ranking = rank_matches(query, gallery, metric=metric, block=block, first_pass=first_pass)
    dropped = int((~ranking.valid).sum())
    if dropped:
        warnings.warn(
            f"{dropped} of {len(ranking.valid)} queries have no true match in the gallery: left out of CMC, mAP and "
            "mINP, counted as 0 in mAP_trapezoid",
            stacklevel=2,
        )
    return ranking.scores(max_rank)


def rank_matches(
    query: Features, gallery: Features, *, metric: str = "euclidean", block: int = 1024, first_pass: str = "auto"
) -> Ranking:
    """The ranks of every query's true matches; arguments and errors as in `evaluate`."""
    protocol = divide(query, gallery)
    offsets = np.concatenate([[0], np.cumsum(protocol.counts)])
    found = count_nearer(
        query.values,
        gallery.values,
        offsets,
        np.concatenate(protocol.matches),
        leave_out=same_identity(query.identities, gallery.identities),
        keep=gallery.identities != JUNK,
        metric=metric,
        block=block,
        first_pass=first_pass,
    )
    ranks = np.empty(offsets[-1], dtype=np.int64)
    # The wrong answers nearer than a match, and the matches before it.
    ranks[np.repeat(offsets[:-1], np.diff(offsets)) + found.order] = found.counts + found.order + 1
    return Ranking(ranks, offsets, len(gallery.identities), found.work)


def same_identity(query_identities: np.ndarray, gallery_identities: np.ndarray) -> LeaveOut:
    """All pairs of one identity: the true matches, which rank among themselves, and those by the query's own camera."""

    @functools.lru_cache(maxsize=1)
    def tile(first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        here = gallery_identities[first : first + rows]
        return here, np.argsort(here, kind="stable")

    def pairs(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        here, by_identity = tile(first, rows)
        wanted = query_identities[first_query : first_query + queries]
        start, end = (np.searchsorted(here, wanted, side=s, sorter=by_identity) for s in ("left", "right"))
        number = end - start
        query = np.repeat(np.arange(queries), number)
        return query, by_identity[np.arange(len(query)) - np.repeat(np.cumsum(number) - number, number) + start[query]]

    return pairs
