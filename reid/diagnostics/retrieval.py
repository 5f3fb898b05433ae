"""What one checkpoint retrieves, or two on the same queries: the content of `ranked_lists.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.diagnostics.camera_pairs import camera_pairs
from reid.diagnostics.comparison import Change, align, change
from reid.diagnostics.embedding_map import embedding_map
from reid.diagnostics.ranked_lists import MAX_TOP, RankedLists, answers, ranked_lists, worst_first
from reid.errors import InputError
from reid.records import Features

MAX_QUERIES = 500
MEASURES = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")


@dataclass(frozen=True)
class Embedded:
    """What a checkpoint made of a dataset: its file name, and the features that are ranked, of which variant."""

    name: str
    query: Features
    gallery: Features
    feature: str
    normalized: bool = False
    flip: bool = False


def check_sizes(queries: int, top: int) -> None:
    """Raise InputError for a page that would not end; asked before long work."""
    if not 0 <= queries <= MAX_QUERIES:
        raise InputError(f"a page lists 0 to {MAX_QUERIES} queries, not {queries}")
    if not 1 <= top <= MAX_TOP:
        raise InputError(f"a ranked list shows 1 to {MAX_TOP} answers, not {top}")


def describe_retrieval(
    dataset: str,
    sides: Sequence[Embedded],
    *,
    queries: int = 200,
    top: int = 10,
    method: str | None = "pca",
    seed: int = 0,
    gain: tuple[bool, str] = (False, ""),
) -> dict[str, Any]:
    """Scores over all queries, the lists of some, accuracy by camera pair, and a map; plain values.

    sides: one checkpoint, or two, the second being what the first is compared with. queries: how many are listed,
    those of the lowest AP, or of the largest change of AP. top: answers of each. method, seed: of `embedding_map`, None
    for no map. gain: what `comparison.is_gain_of_rri` found.

    Keys: dataset; sides (name, variant, scores as SCORE without CMC, camera_pairs, map); comparison (what + is called,
    repaired and broken first answers, ... ; None for one side); queries (columns over all queries; first_hit 0 and
    average_precision None where there is nothing to find); listed (rule, top, count); lists (one entry a listed query).
    Raises InputError where the two sides do not hold the same images, and as the files it calls do.
    """
    check_sizes(queries, top)
    first = sides[0]
    sides = [first, *(_aligned(side, first) for side in sides[1:])]
    lists = [ranked_lists(side.query, side.gallery, top=top) for side in sides]
    changed = change(lists[1].ranking, lists[0].ranking) if len(sides) == 2 else None
    rows = changed.largest_first(queries) if changed else worst_first(lists[0], queries)
    return {
        "dataset": dataset,
        "counts": {"query": len(first.query.values), "gallery": len(first.gallery.values)},
        "sides": [_side(side, found, method, seed) for side, found in zip(sides, lists, strict=True)],
        "comparison": _comparison(changed, lists, gain) if changed else None,
        "queries": _columns(first.query, lists),
        "listed": {"rule": "largest change of AP" if changed else "lowest AP", "top": top, "count": len(rows)},
        "lists": [_entry(row, first.query, first.gallery, lists, changed) for row in rows.tolist()],
    }


def _aligned(side: Embedded, first: Embedded) -> Embedded:
    return dataclasses.replace(
        side,
        query=align(side.query, first.query, part="query"),
        gallery=align(side.gallery, first.gallery, part="gallery"),
    )


def _side(side: Embedded, lists: RankedLists, method: str | None, seed: int) -> dict[str, Any]:
    scores = lists.ranking.scores()
    mapped = embedding_map(side.query, side.gallery, method=method, seed=seed) if method else None
    return {
        "name": side.name,
        "scores": dataclasses.replace(
            scores, feature=side.feature, normalized=side.normalized, flip=side.flip
        ).to_json(),
        "camera_pairs": camera_pairs(side.query, side.gallery).to_json(),
        "map": mapped.to_json() if mapped else None,
    }


def _comparison(changed: Change, lists: Sequence[RankedLists], gain: tuple[bool, str]) -> dict[str, Any]:
    scores = [found.ranking.scores() for found in lists]
    difference = changed.difference[~np.isnan(changed.difference)]
    right = [found.ranking.first_hit == 1 for found in lists]
    return {
        "name": "gain of RRI" if gain[0] else "difference",
        "reason": gain[1],
        **{name: getattr(scores[0], name) - getattr(scores[1], name) for name in MEASURES},
        "repaired": int(changed.repaired.sum()),
        "broken": int(changed.broken.sum()),
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
        "first_hit": [found.ranking.first_hit.tolist() for found in lists],
        "average_precision": [
            [None if np.isnan(value) else value for value in found.ranking.average_precision.tolist()]
            for found in lists
        ],
    }


def _entry(
    row: int, query: Features, gallery: Features, lists: Sequence[RankedLists], changed: Change | None
) -> dict[str, Any]:
    return {
        "query": row,
        "path": query.paths[row] if query.paths else "",
        "identity": int(query.identities[row]),
        "camera": int(query.cameras[row]),
        "matches": int(lists[0].ranking.matches[row]),
        "difference": float(changed.difference[row]) if changed else None,
        "change": changed.of(row) if changed else None,
        "sides": [
            {
                "first_hit": int(found.ranking.first_hit[row]),
                "average_precision": float(found.ranking.average_precision[row]),
                "answers": answers(found, gallery, row),
            }
            for found in lists
        ],
    }
