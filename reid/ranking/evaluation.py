"""Exact retrieval evaluation under the Market-1501 protocol (Zheng et al. 2015), by counting instead of sorting.

Exact means the ranking of the squared distances of the given features in float64, summed in a fixed order, with ties
broken by gallery index. Neither the block size nor the number of threads nor the device changes it.

Gallery images of a query's identity from another camera are its true matches. Those from the query's own camera, and
all images of identity -1, are junk: removed without rank cost. All others, including distractors of identity 0, are
wrong results.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.options import ComparisonOptions
from reid.ranking.exact.ranks import ExcludedPairs, count_nearer
from reid.ranking.metrics import Ranking
from reid.ranking.protocols.market import market_ground_truth
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
    """Compute CMC, mAP (rectangle and trapezoid) and mINP of ranking the gallery for every query.

    Queries without a true match are excluded from every mean but that of mAP_trapezoid, where they count as 0; a
    warning reports their number.

    Args:
        query: Queries. The values may be arrays, memory maps, `reid.io.shards.Shards` or tensors.
        gallery: Gallery, on the device of the queries; it is read one tile at a time.
        metric: "euclidean", or "cosine" for the Euclidean distance between rows divided by their float64 length.
        max_rank: Length of the CMC curve, limited to the size of the gallery.
        block: Queries compared at once. It does not change the result.
        first_pass: "float32", "integers" (see `reid.ranking.exact.first_pass`) or "auto" for the faster one. It does
            not change the result.

    Returns:
        Averages over the queries with a true match.

    Raises:
        InputError: If a side is empty, the widths differ, a query has identity 0 or -1, rows have NaN or infinity, or
            no query has a true match (the message names the rule that removed them).
    """
    if max_rank < 1:
        raise InputError(f"max_rank {max_rank}: the CMC curve requires at least 1")
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
    """Compute the ranks of every query's true matches.

    Args:
        query: Queries, as in `evaluate`.
        gallery: Features to search, of the same width.
        metric: "euclidean" or "cosine".
        block: Queries compared at once.
        first_pass: "auto", "float32" or "integers".

    Returns:
        Ranks of the true matches after removing junk.

    Raises:
        InputError: If `evaluate` raises it.
    """
    truth = market_ground_truth(query, gallery)
    offsets = np.concatenate([[0], np.cumsum(truth.counts)])
    found = count_nearer(
        query.values,
        gallery.values,
        offsets,
        np.concatenate(truth.matches),
        excluded=_same_identity(query.identities, gallery.identities),
        keep=gallery.identities != JUNK,
        options=ComparisonOptions(metric, block, first_pass),
    )
    ranks = np.empty(offsets[-1], dtype=np.int64)
    # The wrong results nearer than a match, and the matches before it.
    ranks[np.repeat(offsets[:-1], np.diff(offsets)) + found.order] = found.counts + found.order + 1
    return Ranking(ranks, offsets, len(gallery.identities), found.work, query.identities)


def _same_identity(query_identities: np.ndarray, gallery_identities: np.ndarray) -> ExcludedPairs:
    """Exclude all pairs of one identity: true matches, which are ranked among themselves, and own-camera junk."""

    @functools.lru_cache(maxsize=1)
    def tile(first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        identities = gallery_identities[first : first + rows]
        return identities, np.argsort(identities, kind="stable")

    def pairs(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        identities, by_identity = tile(first, rows)
        own = query_identities[first_query : first_query + queries]
        start, end = (np.searchsorted(identities, own, side=s, sorter=by_identity) for s in ("left", "right"))
        number = end - start
        query = np.repeat(np.arange(queries), number)
        return query, by_identity[np.arange(len(query)) - np.repeat(np.cumsum(number) - number, number) + start[query]]

    return pairs
