from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from exact_reference import drawn, labels
from threadpoolctl import threadpool_limits

from reid.ranking import rank_matches
from reid.records import Features


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_nothing() -> None:
    found = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        digest = hashlib.sha256()
        with threadpool_limits(threads):
            for kind in ("random", "duplicated", "lengths"):
                rng = np.random.default_rng(0)
                query, gallery = drawn(kind, 130, 1500, 257)
                sides = [(part, labels(rng, len(part), lowest=1, identities=99)) for part in (query, gallery)]
                for convert in (np.asarray, torch.from_numpy):
                    parts = [Features(convert(values), of[:, 0], of[:, 1]) for values, of in sides]
                    digest.update(rank_matches(*parts).ranks.tobytes())
        found.add(digest.hexdigest())
    assert len(found) == 1
