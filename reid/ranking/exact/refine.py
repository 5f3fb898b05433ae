"""Comparisons that the first pass left open: decided by a closer bound, or by the exact distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact import bounds
from reid.ranking.exact.first_pass import Rows
from reid.ranking.exact.gallery_rows import Source, pair_distances
from reid.ranking.exact.targets import Targets

# Products summed in float32 before the sums go on in float64.
_TERMS = 64
_PAIRS_AT_ONCE = 512


@dataclass(frozen=True)
class Pairs:
    """The two sides a comparison is about: all queries, and one tile of the gallery.

    query, gallery: the rows as they are ranked. asked, tile: the same prepared for the first pass. places: (T,) int64,
    the tile's gallery indices.
    """

    query: Source
    asked: Rows
    gallery: Any
    tile: Rows
    places: np.ndarray


def decide(targets: Targets, which: np.ndarray, pairs: Pairs, columns: np.ndarray) -> np.ndarray:
    """Whether a row of the tile is nearer to its query than a target: (n,) int64 twice -> (n,) bool.

    which: the targets. columns: places in the tile.
    """
    nearer = np.zeros(len(which), dtype=bool)
    if not len(which):
        return nearer
    owner = targets.owner[which]
    # A pair of rows that several targets ask about is looked at once.
    tile = len(pairs.places)
    keys, asked = np.unique(owner * tile + columns, return_inverse=True)
    distance, half = (found[asked] for found in _closer(pairs, keys // tile, keys % tile))
    nearer[distance + half < targets.least[which]] = True
    open_still = np.flatnonzero(~nearer & (distance - half <= targets.most[which]))
    if len(open_still):
        which, owner, columns = which[open_still], owner[open_still], columns[open_still]
        targets.settle(which)
        exact, mine = pair_distances(pairs.query, pairs.gallery, owner, columns), targets.exact[which]
        nearer[open_still] = (exact < mine) | ((exact == mine) & (pairs.places[columns] < targets.places[which]))
    return nearer


def _closer(pairs: Pairs, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances, and how far they may be off, with few products in each float32 sum: two (n,) float64."""
    width = pairs.asked.values.shape[1]
    product = np.empty(len(rows))
    step = _PAIRS_AT_ONCE * (64 if arrays.is_tensor(pairs.asked.values) else 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        left = arrays.rows_of(pairs.asked.values, rows[part])
        right = arrays.rows_of(pairs.tile.values, columns[part])
        sums = [
            arrays.as_type(
                arrays.row_products(left[:, first : first + _TERMS], right[:, first : first + _TERMS]), "float64"
            )
            for first in range(0, width, _TERMS)
        ]
        product[part] = arrays.host(sum(sums[1:], start=sums[0]))
    lengths = pairs.asked.lengths[rows], pairs.tile.lengths[columns]
    half = bounds.float32_product(*lengths, min(width, _TERMS)) + bounds.centered_distance(*lengths, width)
    return pairs.asked.squared[rows] + pairs.tile.squared[columns] + product, half
