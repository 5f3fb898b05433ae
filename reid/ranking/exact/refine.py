"""Comparisons that the first pass leaves undecided: resolved by a tighter bound, or by the exact distances."""

from __future__ import annotations

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact import bounds
from reid.ranking.exact.first_pass import PreparedRows
from reid.ranking.exact.gallery_rows import GalleryTile, RowSource, unique_pair_distances
from reid.ranking.exact.targets import Targets

# Products summed in float32 before the sums continue in float64.
_TERMS = 64
_PAIR_BATCH = 512


def is_nearer(
    targets: Targets,
    which: np.ndarray,
    query: RowSource,
    prepared: PreparedRows,
    tile: GalleryTile,
    columns: np.ndarray,
) -> np.ndarray:
    """Decide whether rows of a tile are nearer to their query than targets are.

    Args:
        targets: Distances to compare with, of all queries.
        which: (n,) int64 numbers of the targets to compare with.
        query: Source of all queries.
        prepared: The same queries prepared for the first pass.
        tile: Gallery rows that `columns` counts in.
        columns: (n,) int64 indices of rows in the tile.

    Returns:
        (n,) bool, by exact distance and then by gallery index.
    """
    nearer = np.zeros(len(which), dtype=bool)
    if not len(which):
        return nearer
    owner = targets.owner[which]
    # A pair of rows compared with several targets is computed once.
    width = len(tile.indices)
    keys, inverse = np.unique(owner * width + columns, return_inverse=True)
    distance, half = (part[inverse] for part in _tighter(prepared, tile.prepared, keys // width, keys % width))
    nearer[distance + half < targets.lower[which]] = True
    undecided = np.flatnonzero(~nearer & (distance - half <= targets.upper[which]))
    if len(undecided):
        which, owner, columns = which[undecided], owner[undecided], columns[undecided]
        targets.compute_exact(which)
        exact, own = unique_pair_distances(query, tile.rows, owner, columns), targets.exact[which]
        nearer[undecided] = (exact < own) | ((exact == own) & (tile.indices[columns] < targets.indices[which]))
    return nearer


def _tighter(
    query: PreparedRows, tile: PreparedRows, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) float64 squared distances with few products per float32 sum, and bounds on their error."""
    width = query.values.shape[1]
    product = np.empty(len(rows))
    step = _PAIR_BATCH * (64 if arrays.is_tensor(query.values) else 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        left = arrays.rows_of(query.values, rows[part])
        right = arrays.rows_of(tile.values, columns[part])
        sums = [
            arrays.as_type(
                arrays.row_products(left[:, first : first + _TERMS], right[:, first : first + _TERMS]), "float64"
            )
            for first in range(0, width, _TERMS)
        ]
        product[part] = arrays.to_numpy(sum(sums[1:], start=sums[0]))
    lengths = query.lengths[rows], tile.lengths[columns]
    half = bounds.float32_product(*lengths, min(width, _TERMS)) + bounds.centered_distance(*lengths, width)
    return query.squared[rows] + tile.squared[columns] + product, half
