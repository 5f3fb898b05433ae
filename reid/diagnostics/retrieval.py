"""Retrieval results of one checkpoint, or of two on the same queries: the content of `ranked_lists.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.diagnostics.camera_pairs import score_camera_pairs
from reid.diagnostics.comparison import RankingChange, align, compare_rankings
from reid.diagnostics.embedding_map import embedding_map
from reid.diagnostics.ranked_lists import MAX_TOP, RankedLists, lowest_ap_first, ranked_lists, result_entries
from reid.errors import InputError
from reid.ranking import score_difference
from reid.records import Features

MAX_QUERIES = 500
METRICS = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")


@dataclass(frozen=True)
class CheckpointFeatures:
    """Features that a checkpoint extracted from a dataset.

    Attributes:
        name: Name of the checkpoint.
        query: Labeled features to rank.
        gallery: Labeled features to rank.
        feature: The Eigenlayer's "input" or "output".
        normalized: Whether rows have unit length.
        flip: Whether features are averaged with those of the mirror image.
    """

    name: str
    query: Features
    gallery: Features
    feature: str
    normalized: bool = False
    flip: bool = False


def check_sizes(queries: int, top: int) -> None:
    """Check the size of a page, before expensive work.

    Args:
        queries: Number of listed queries, in [0, 500].
        top: Results per query, in [1, 50].

    Raises:
        InputError: If a number is out of range.
    """
    if not 0 <= queries <= MAX_QUERIES:
        raise InputError(f"a page lists 0 to {MAX_QUERIES} queries, not {queries}")
    if not 1 <= top <= MAX_TOP:
        raise InputError(f"a ranked list shows 1 to {MAX_TOP} results, not {top}")


def describe_retrieval(
    dataset: str,
    sides: Sequence[CheckpointFeatures],
    *,
    queries: int = 200,
    top: int = 10,
    method: str | None = "pca",
    seed: int = 0,
    gain: tuple[bool, str] = (False, ""),
) -> dict[str, Any]:
    """Collect scores over all queries, the ranked lists of some, scores by camera pair, and a map.

    Args:
        dataset: Name of the dataset.
        sides: One checkpoint, or two, of which the second is the reference.
        queries: Maximum number of listed queries: those with the lowest AP, or with the largest change of AP.
        top: Results per listed query.
        method: Method of `embedding_map`, None for no map.
        seed: Seed of `embedding_map`.
        gain: Value returned by `comparison.is_gain_of_rri`.

    Returns:
        Plain values: "dataset"; "counts"; "sides" (name, variant, scores without CMC, camera_pairs, map);
        "comparison" (name of the difference, its 95 % "intervals" as `score_difference` returns them, repaired and
        broken results at rank 1, ...; None for one side); "queries"
        (columns over all queries; first_hit is 0 and average_precision None without a true match); "listed" (rule,
        top, count); "lists" (one entry per listed query).

    Raises:
        InputError: If the sides have different images, or an option is out of range.
    """
    check_sizes(queries, top)
    first = sides[0]
    sides = [first, *(_align_side(side, first) for side in sides[1:])]
    lists = [ranked_lists(side.query, side.gallery, top=top) for side in sides]
    change = compare_rankings(lists[1].ranking, lists[0].ranking) if len(sides) == 2 else None
    rows = change.largest_changes(queries) if change else lowest_ap_first(lists[0], queries)
    return {
        "dataset": dataset,
        "counts": {"query": len(first.query.values), "gallery": len(first.gallery.values)},
        "sides": [_side(side, side_lists, method, seed) for side, side_lists in zip(sides, lists, strict=True)],
        "comparison": _comparison(change, lists, gain) if change else None,
        "queries": _columns(first.query, lists),
        "listed": {"rule": "largest change of AP" if change else "lowest AP", "top": top, "count": len(rows)},
        "lists": [query_entry(row, first.query, first.gallery, lists, change) for row in rows.tolist()],
    }


def _align_side(side: CheckpointFeatures, first: CheckpointFeatures) -> CheckpointFeatures:
    return dataclasses.replace(
        side,
        query=align(side.query, first.query, part="query"),
        gallery=align(side.gallery, first.gallery, part="gallery"),
    )


def _side(side: CheckpointFeatures, lists: RankedLists, method: str | None, seed: int) -> dict[str, Any]:
    scores = lists.ranking.scores()
    mapped = embedding_map(side.query, side.gallery, method=method, seed=seed) if method else None
    return {
        "name": side.name,
        "scores": dataclasses.replace(
            scores, feature=side.feature, normalized=side.normalized, flip=side.flip
        ).to_json(),
        "camera_pairs": score_camera_pairs(side.query, side.gallery).to_json(),
        "map": mapped.to_json() if mapped else None,
    }


def _comparison(change: RankingChange, lists: Sequence[RankedLists], gain: tuple[bool, str]) -> dict[str, Any]:
    scores = [side.ranking.scores() for side in lists]
    difference = change.difference[~np.isnan(change.difference)]
    right = [side.ranking.first_hit == 1 for side in lists]
    return {
        "name": "gain of RRI" if gain[0] else "difference",
        "reason": gain[1],
        **{name: getattr(scores[0], name) - getattr(scores[1], name) for name in METRICS},
        "intervals": score_difference(scores[0], scores[1]),
        "repaired": int(change.repaired.sum()),
        "broken": int(change.broken.sum()),
        "right_in_both": int((right[0] & right[1]).sum()),
        "wrong_in_both": int((~right[0] & ~right[1] & lists[0].ranking.valid).sum()),
        "higher_ap": int((difference > 0).sum()),
        "lower_ap": int((difference < 0).sum()),
    }


def _columns(query: Features, lists: Sequence[RankedLists]) -> dict[str, Any]:
    return {
        "paths": list(query.paths),
        "identities": query.identities.tolist(),
        "cameras": query.cameras.tolist(),
        "matches": lists[0].ranking.matches.tolist(),
        "first_hit": [side.ranking.first_hit.tolist() for side in lists],
        "average_precision": [
            [None if np.isnan(value) else value for value in side.ranking.average_precision.tolist()] for side in lists
        ],
    }


def query_entry(
    row: int, query: Features, gallery: Features, lists: Sequence[RankedLists], change: RankingChange | None
) -> dict[str, Any]:
    """Describe one query with its results.

    Args:
        row: Row of the query.
        query: The queries.
        gallery: The gallery that was ranked.
        lists: Ranked lists of one network, or of two.
        change: Change from the second to the first of two networks.

    Returns:
        Plain values: an entry of "lists" in `ranked_lists.json`.
    """
    return {
        "query": row,
        "path": query.paths[row] if query.paths else "",
        "identity": int(query.identities[row]),
        "camera": int(query.cameras[row]),
        "matches": int(lists[0].ranking.matches[row]),
        "difference": float(change.difference[row]) if change else None,
        "change": change.label(row) if change else None,
        "sides": [
            {
                "first_hit": int(side.ranking.first_hit[row]),
                "average_precision": float(side.ranking.average_precision[row]),
                "answers": result_entries(side, gallery, row),
            }
            for side in lists
        ],
    }
