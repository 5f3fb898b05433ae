"""k-reciprocal re-ranking (Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017).

The re-ranked distance of a query and a gallery image is (1 - weight) J + weight O. J is the Jaccard distance of their
neighborhoods (see `k_reciprocal`), O = (d / m)^distance_power with d their squared Euclidean distance and m the largest
of the query to any image, query or gallery. The power, which the weights of the neighborhoods share, is where two
published programs differ:

- distance_power 2: deep-person-reid (torchreid), which squares the squared distances it is given once more;
- distance_power 1: reid-strong-baseline, and the Python code of the paper's authors, which squares Euclidean distances.

Both use the k1 + 1 nearest images, including the image itself. Here an image is in its own list even if it has
duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError, check_count
from reid.ranking.arrays import all_rows, as_matrix
from reid.ranking.distance import normalize_rows
from reid.ranking.exact import first_pass
from reid.ranking.exact.neighbors import check_rows, nearest_and_largest
from reid.ranking.exact.pair_distances import pair_distances
from reid.ranking.exact.tiles import check_matrices
from reid.ranking.metrics import Ranking
from reid.ranking.protocols.market import market_ground_truth
from reid.ranking.reranking.jaccard import RerankedDistances, RerankedRow, reranked_rows
from reid.ranking.reranking.k_reciprocal import encode
from reid.records import Features

# Undecided comparisons that are collected before they are resolved; a single query with more is sorted exactly.
_MAX_UNDECIDED = 1 << 20


@dataclass(frozen=True)
class RerankOptions:
    """Parameters of k-reciprocal re-ranking.

    Attributes:
        k1: Number of neighbors in the reciprocal sets.
        k2: Number of rows averaged by the local query expansion, 1 for none.
        weight: lambda, the weight of the original distance, 0 .. 1.
        distance_power: 2 or 1, see the module.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    distance_power: int = 2

    def __post_init__(self) -> None:
        check_count("k1", self.k1)
        check_count("k2", self.k2)
        if not 0.0 <= self.weight <= 1.0:
            raise InputError(f"weight {self.weight}: the weight of the original distance (lambda) must be in [0, 1]")
        if self.distance_power not in (1, 2):
            raise InputError(
                f"distance_power {self.distance_power}: must be 2 (as in deep-person-reid) or 1 (as in "
                "reid-strong-baseline)"
            )

    def check(self, rows: int) -> None:
        """Check that there are enough rows.

        Args:
            rows: Number N of query and gallery rows.

        Raises:
            InputError: If k1 exceeds N - 1 or k2 exceeds N.
        """
        if self.k1 >= rows:
            raise InputError(f"k1 {self.k1}: must be in [1, {rows - 1}], below the {rows} query and gallery rows")
        if self.k2 > rows:
            raise InputError(f"k2 {self.k2}: must be in [1, {rows}], at most the query and gallery rows")


_DEFAULT_OPTIONS = RerankOptions()


def rerank_ranking(
    query: Features, gallery: Features, options: RerankOptions = _DEFAULT_OPTIONS, *, metric: str = "euclidean"
) -> Ranking:
    """Rank every query's true matches by re-ranked distance in float64, equal distances by gallery index.

    All images of the gallery are neighbors, including junk. float32 decides where its error bound allows; undecided
    comparisons are computed in float64.

    Args:
        query: Queries; tensors and shards are read into host memory.
        gallery: Gallery features with identities and cameras.
        options: Parameters of re-ranking.
        metric: "euclidean", or "cosine" for rows divided by their length.

    Returns:
        The ranks under the protocol of `reid.ranking.evaluate`.

    Raises:
        InputError: If `reid.ranking.evaluate` or `rerank_blocks` raises it.
    """
    truth = market_ground_truth(query, gallery)
    reranked, workspace = _reranked_distances(query.values, gallery.values, options, metric)
    count, indices = truth.counts, np.concatenate(truth.matches)
    offsets = np.concatenate([[0], np.cumsum(count)])
    owner = np.repeat(np.arange(len(count)), count)
    squared = pair_distances(reranked.query, reranked.gallery, owner, indices)
    exact, ranks = np.empty(len(indices)), np.empty(len(indices), dtype=np.int64)
    batch: list[_Undecided] = []
    batch_size = 0
    integers = first_pass.is_int8_faster(reranked.query.shape[1])
    for i, row in reranked_rows(reranked, workspace, integers=integers):
        own = slice(offsets[i], offsets[i + 1])
        matches = indices[own]
        exact[own] = reranked.combine(i, squared[own], row.shared[matches])
        row.distances[truth.unlabeled] = np.inf
        row.distances[truth.same_camera[i]] = np.inf
        ranks[own], undecided = _compare(reranked, i, row, exact[own], matches, first_target=int(offsets[i]))
        batch.append(undecided)
        batch_size += len(undecided.target)
        if batch_size > _MAX_UNDECIDED or i == len(count) - 1:
            _resolve(reranked, batch, exact, indices, ranks)
            batch, batch_size = [], 0
    return Ranking(ranks[np.lexsort((ranks, owner))], offsets, len(gallery.values), identities=query.identities)


def rerank_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    options: RerankOptions = _DEFAULT_OPTIONS,
    *,
    metric: str = "euclidean",
    block: int = 128,
) -> Iterator[tuple[int, np.ndarray]]:
    """Compute all re-ranked distances, `block` queries at a time.

    Neither an N x N nor a Q x G array is allocated, N = Q + G. Memory is a copy of the features, half as much again
    while neighbors are searched, and a few hundred numbers per row.

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating.
        options: Parameters of re-ranking.
        metric: "euclidean", or "cosine" for rows divided by their length: their squared distance is 2 (1 - cos), and
            the factor cancels.
        block: Queries per block.

    Yields:
        The index of the first query and the (b, G) float32 distances, b <= block. The array is one buffer: the caller
        may change it, and the next block overwrites it.

    Raises:
        InputError: If parameters are out of range, the widths differ or the metric is unknown.
    """
    if block < 1:
        raise InputError(f"block {block}: must be at least 1 query")
    reranked, workspace = _reranked_distances(query, gallery, options, metric)
    query, gallery = reranked.query, reranked.gallery
    buffer = np.empty((min(block, len(query)), len(gallery)), dtype=np.float32)
    for i, row in reranked_rows(reranked, workspace, integers=False):
        buffer[i % block] = row.distances
        if i % block == block - 1 or i == len(query) - 1:
            yield i - i % block, buffer[: i % block + 1]


def _reranked_distances(
    query: np.ndarray, gallery: np.ndarray, options: RerankOptions, metric: str
) -> tuple[RerankedDistances, np.ndarray]:
    """Return what the distances are computed from, and (N, D) float32 memory to work in."""
    query, gallery = as_matrix(query, "query"), as_matrix(gallery, "gallery")
    check_matrices(query, gallery, metric)
    query, gallery = all_rows(query), all_rows(gallery)
    options.check(len(query) + len(gallery))
    check_rows(query, "query feature")
    check_rows(gallery, "gallery feature")
    if metric == "cosine":
        query, gallery = normalize_rows(query), normalize_rows(gallery)
    values, number = np.concatenate([query, gallery]), len(query)
    power = options.distance_power
    neighbors = nearest_and_largest(values, max(options.k1 + 1, options.k2))
    vectors = encode(values, neighbors, k1=options.k1, k2=options.k2, distance_power=power)
    inverted, largest = vectors[number:].tocsc(), neighbors.largest[:number]
    reranked = RerankedDistances(query, gallery, vectors[:number], inverted, largest, options.weight, power)
    return reranked, values if values.dtype == np.float32 else values.astype(np.float32)


@dataclass(frozen=True)
class _Undecided:
    """Comparisons of a match with another image that float32 leaves undecided.

    `target` (n,) is the number of the match among all, `query` and `index` (n,) are the pair, and `shared` (n,) float64
    is its overlap.
    """

    target: np.ndarray
    query: np.ndarray
    index: np.ndarray
    shared: np.ndarray


def _compare(
    reranked: RerankedDistances,
    query: int,
    row: RerankedRow,
    exact: np.ndarray,
    matches: np.ndarray,
    *,
    first_target: int,
) -> tuple[np.ndarray, _Undecided]:
    """Return (m,) int64 ranks of a query's matches by what is certainly nearer, and the undecided comparisons.

    `exact` (m,) are the matches' exact distances. Junk is infinite in `row`.
    """
    low = np.nextafter((exact - row.half_width).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((exact + row.half_width).astype(np.float32), np.float32(np.inf))
    images = np.flatnonzero(row.distances <= high.max(initial=0.0))
    # Sorted by distance, whose bits as an integer have the same order, and index.
    keys = np.sort(_bits(row.distances[images]) + images)
    start = np.searchsorted(keys, _bits(np.maximum(low, 0)))
    number = np.searchsorted(keys, _bits(high) + (1 << 32)) - start
    total = int(number.sum())
    if total > _MAX_UNDECIDED:
        distances = reranked.exact(np.full(len(images), query), images, row.shared[images])
        position = np.empty(len(images), dtype=np.int64)
        position[np.argsort(distances, kind="stable")] = np.arange(len(images))
        start, number, total = position[np.searchsorted(images, matches)], np.zeros_like(number), 0
    match = np.repeat(np.arange(len(matches)), number)
    ends = np.cumsum(number)
    index = keys[np.arange(total) + np.repeat(start - ends + number, number)] & 0xFFFFFFFF
    other = index != matches[match]
    match, index = match[other], index[other]
    return start + 1, _Undecided(first_target + match, np.full(len(match), query), index, row.shared[index])


def _bits(distances: np.ndarray) -> np.ndarray:
    """Map float32, at least 0, to int64 with the bits in its upper half."""
    return distances.view(np.int32).astype(np.int64) << 32


def _resolve(
    reranked: RerankedDistances, batch: list[_Undecided], exact: np.ndarray, indices: np.ndarray, ranks: np.ndarray
) -> None:
    """Add the undecided comparisons to `ranks`, by exact distances."""
    target, query, index, shared = (
        np.concatenate([getattr(part, name) for part in batch]) for name in ("target", "query", "index", "shared")
    )
    length = len(reranked.gallery)
    _, first, inverse = np.unique(query * length + index, return_index=True, return_inverse=True)
    distances = reranked.exact(query[first], index[first], shared[first])[inverse]
    nearer = (distances < exact[target]) | ((distances == exact[target]) & (index < indices[target]))
    ranks += np.bincount(target[nearer], minlength=len(ranks))
