"""A few queries whose results changed most from one network to another: the content of `examples.json`."""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.diagnostics.comparison import compare_rankings
from reid.diagnostics.ranked_lists import RankedLists
from reid.diagnostics.retrieval import query_entry
from reid.records import Features

TOP = 5


def describe_examples(
    query: Features,
    gallery: Features,
    *,
    after: tuple[str, RankedLists],
    before: tuple[str, RankedLists],
    count: int = 2,
) -> dict[str, Any]:
    """Choose queries of which the first result was repaired or broken, those with the largest change of AP first.

    Args:
        query: Queries with labels and paths.
        gallery: Gallery with labels and paths.
        after: Name and ranked lists of a network.
        before: Name and ranked lists of the reference, for the same images.
        count: Maximum number of queries of either kind.

    Returns:
        Plain values: "names" of the two networks; "queries" with a true match; the number of "repaired" and "broken"
        ones; "lists" of the chosen queries, as in `ranked_lists.json`.
    """
    change = compare_rankings(before[1].ranking, after[1].ranking)
    chosen = []
    for changed, sign in ((change.repaired, -1), (change.broken, 1)):
        rows = np.flatnonzero(changed)
        chosen += rows[np.argsort(sign * change.difference[rows], kind="stable")[:count]].tolist()
    return {
        "names": [after[0], before[0]],
        "queries": int(after[1].ranking.valid.sum()),
        "repaired": int(change.repaired.sum()),
        "broken": int(change.broken.sum()),
        "lists": [query_entry(row, query, gallery, (after[1], before[1]), change) for row in chosen],
    }
