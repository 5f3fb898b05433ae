"""Examples are the queries whose first result changed, those with the largest change of AP first."""

from __future__ import annotations

import dataclasses

import numpy as np

from reid.diagnostics.examples import describe_examples
from reid.diagnostics.ranked_lists import ranked_lists
from reid.records import Features
from reid.report.entries import is_examples


def test_repaired_and_broken_queries() -> None:
    random = np.random.default_rng(0)

    def part(count: int) -> Features:
        labels = random.integers(1, 6, count), random.integers(1, 4, count)
        paths = tuple(f"{i}.jpg" for i in range(count))
        return Features(random.normal(size=(count, 6)).astype(np.float32), *labels, paths)

    query, gallery = part(30), part(40)
    other = dataclasses.replace(query, values=query.values[::-1].copy())
    after, before = (ranked_lists(side, gallery, top=3) for side in (query, other))
    found = describe_examples(query, gallery, after=("RRI", after), before=("control", before), count=2)
    assert is_examples(found) and found["names"] == ["RRI", "control"]
    right = [lists.ranking.first_hit == 1 for lists in (after, before)]
    change = after.ranking.average_precision - before.ranking.average_precision
    for name, changed, sign in (("repaired", right[0] & ~right[1], 1), ("broken", ~right[0] & right[1], -1)):
        shown = [entry["query"] for entry in found["lists"] if entry["change"] == name]
        assert found[name] == changed.sum() > 2
        largest = sorted(np.flatnonzero(changed), key=lambda row: -sign * change[row])
        assert shown == largest[:2]
