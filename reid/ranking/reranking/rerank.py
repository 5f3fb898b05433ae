"""k-reciprocal re-ranking (Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017).

The re-ranked distance of a query and a gallery image is (1 - weight) J + weight O. J is the Jaccard distance of their
neighborhoods (see `reciprocal`), O = (d / m)^distance_power with d their squared Euclidean distance and m the largest
of the query to any image, query or gallery. The power, which the weights of the neighborhoods share, is where two
published programs differ:

- distance_power 2: deep-person-reid (torchreid), which squares the squared distances it is given once more;
- distance_power 1: reid-strong-baseline, and the Python code of the paper's authors, which squares Euclidean distances.

Both take the k1 + 1 nearest images, the image itself among them. Here it is in its own list even among its duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking.arrays import all_rows
from reid.ranking.distance import normalize_rows
from reid.ranking.exact import first_pass
from reid.ranking.exact.neighbors import check_rows, nearest_and_largest
from reid.ranking.exact.pair_distances import paired_distances
from reid.ranking.exact.tiles import check_matrices
from reid.ranking.metrics import Ranking
from reid.ranking.protocols.market import divide
from reid.ranking.reranking.jaccard import Mixture, Row, mixture_rows
from reid.ranking.reranking.k_reciprocal import encode
from reid.records import Features

# Comparisons left open that are kept to be settled together; a single query with more is sorted exactly.
_MOST_OPEN = 1 << 20


def rerank_ranking(
    query: Features,
    gallery: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    distance_power: int = 2,
    metric: str = "euclidean",
) -> Ranking:
    """The ranks of every query's true matches by re-ranked distance in float64, equal distances by gallery index.

    Arguments as in `rerank_blocks`; protocol and its errors as in `evaluate`. All images of the gallery are neighbors,
    junk too. float32 decides where its error bound allows; what it leaves open is computed in float64. Tensors and
    shards are brought into the host's memory.
    """
    protocol = divide(query, gallery)
    mixture, room = _mixture(query.values, gallery.values, k1, k2, weight, distance_power, metric)
    count, places = protocol.counts, np.concatenate(protocol.matches)
    offsets = np.concatenate([[0], np.cumsum(count)])
    owner = np.repeat(np.arange(len(count)), count)
    squared = paired_distances(mixture.query, mixture.gallery, owner, places)
    wanted, ranks = np.empty(len(places)), np.empty(len(places), dtype=np.int64)
    left: list[_Open] = []
    waiting = 0
    integers = first_pass.integers_pay(mixture.query.shape[1])
    for i, row in mixture_rows(mixture, room, integers=integers):
        own = slice(offsets[i], offsets[i + 1])
        matches = places[own]
        wanted[own] = mixture.mixed(i, squared[own], row.shared[matches])
        row.distances[protocol.unlabeled] = np.inf
        row.distances[protocol.same_camera[i]] = np.inf
        ranks[own], still_open = _compare(mixture, i, row, wanted[own], matches, first_target=int(offsets[i]))
        left.append(still_open)
        waiting += len(still_open.target)
        if waiting > _MOST_OPEN or i == len(count) - 1:
            _settle(mixture, left, wanted, places, ranks)
            left, waiting = [], 0
    return Ranking(ranks[np.lexsort((ranks, owner))], offsets, len(gallery.values))


def rerank_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    distance_power: int = 2,
    metric: str = "euclidean",
    block: int = 128,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index of the first query, re-ranked distances (b, G) float32) for `block` queries at a time, b <= block.

    query: (Q, D), gallery: (G, D), floating. k1: neighbors of the reciprocal sets; k2: rows averaged by the local
    query expansion, 1 for none; weight: lambda, the share of the original distance, 0 .. 1; distance_power: 2 or 1,
    see the module. With `cosine` rows are first divided by their length: their squared distance is 2 (1 - cos), and
    the factor cancels. The yielded array is one buffer: the caller may change it, and the next block overwrites it.
    Neither an N x N nor a Q x G array is held, N = Q + G: memory is a copy of the features, half as much again while
    neighbors are sought, and some hundred numbers a row.
    Raises InputError for arguments out of range, k1 >= N, k2 > N, differing widths and what is no metric.
    """
    if block < 1:
        raise InputError(f"a block holds at least one query, not {block}")
    mixture, room = _mixture(query, gallery, k1, k2, weight, distance_power, metric)
    buffer = np.empty((min(block, len(query)), len(gallery)), dtype=np.float32)
    for i, row in mixture_rows(mixture, room, integers=False):
        buffer[i % block] = row.distances
        if i % block == block - 1 or i == len(query) - 1:
            yield i - i % block, buffer[: i % block + 1]


def _mixture(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float, distance_power: int, metric: str
) -> tuple[Mixture, np.ndarray]:
    """What the distances are made of, and (N, D) float32 of memory to work in."""
    check_matrices(query, gallery, metric)
    query, gallery = all_rows(query), all_rows(gallery)
    _check(len(query) + len(gallery), k1, k2, weight, distance_power)
    check_rows(query, "query feature")
    check_rows(gallery, "gallery feature")
    if metric == "cosine":
        query, gallery = normalize_rows(query), normalize_rows(gallery)
    values, number = np.concatenate([query, gallery]), len(query)
    neighbors = nearest_and_largest(values, max(k1 + 1, k2))
    vectors = encode(values, neighbors, k1=k1, k2=k2, distance_power=distance_power)
    inverted, largest = vectors[number:].tocsc(), neighbors.largest[:number]
    mixture = Mixture(query, gallery, vectors[:number], inverted, largest, weight, distance_power)
    return mixture, values if values.dtype == np.float32 else values.astype(np.float32)


@dataclass(frozen=True)
class _Open:
    """Comparisons of a match with another image that float32 leaves open.

    target: (n,) int64, number of the match among all. query, place: (n,) int64. shared: (n,) float64, see `Row`.
    """

    target: np.ndarray
    query: np.ndarray
    place: np.ndarray
    shared: np.ndarray


def _compare(
    mixture: Mixture, query: int, row: Row, wanted: np.ndarray, matches: np.ndarray, *, first_target: int
) -> tuple[np.ndarray, _Open]:
    """Ranks of a query's matches, (m,) int64 from 1, by what is nearer for sure, and what is open.

    wanted: (m,) float64, the matches' exact distances. Junk is infinite in `row`.
    """
    low = np.nextafter((wanted - row.half_width).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((wanted + row.half_width).astype(np.float32), np.float32(np.inf))
    images = np.flatnonzero(row.distances <= high.max(initial=0.0))
    # Sorted by distance, whose bits as an integer are in its order, and index.
    keys = np.sort(_bits(row.distances[images]) + images)
    start = np.searchsorted(keys, _bits(np.maximum(low, 0)))
    number = np.searchsorted(keys, _bits(high) + (1 << 32)) - start
    total = int(number.sum())
    if total > _MOST_OPEN:
        exact = mixture.distances(np.full(len(images), query), images, row.shared[images])
        place = np.empty(len(images), dtype=np.int64)
        place[np.argsort(exact, kind="stable")] = np.arange(len(images))
        start, number, total = place[np.searchsorted(images, matches)], np.zeros_like(number), 0
    match = np.repeat(np.arange(len(matches)), number)
    ends = np.cumsum(number)
    place = keys[np.arange(total) + np.repeat(start - ends + number, number)] & 0xFFFFFFFF
    other = place != matches[match]
    match, place = match[other], place[other]
    return start + 1, _Open(first_target + match, np.full(len(match), query), place, row.shared[place])


def _bits(distances: np.ndarray) -> np.ndarray:
    """float32, at least 0 -> int64 with the bits in its upper half."""
    return distances.view(np.int32).astype(np.int64) << 32


def _settle(mixture: Mixture, left: list[_Open], wanted: np.ndarray, places: np.ndarray, ranks: np.ndarray) -> None:
    """Add to `ranks` what was left open, by exact distances."""
    target, query, place, shared = (
        np.concatenate([getattr(part, name) for part in left]) for name in ("target", "query", "place", "shared")
    )
    length = len(mixture.gallery)
    _, first, back = np.unique(query * length + place, return_index=True, return_inverse=True)
    exact = mixture.distances(query[first], place[first], shared[first])[back]
    nearer = (exact < wanted[target]) | ((exact == wanted[target]) & (place < places[target]))
    ranks += np.bincount(target[nearer], minlength=len(ranks))


def _check(rows: int, k1: int, k2: int, weight: float, distance_power: int) -> None:
    if not 1 <= k1 < rows:
        raise InputError(f"re-ranking needs k1 in 1 .. {rows - 1}, below the {rows} query and gallery rows, not {k1}")
    if not 1 <= k2 <= rows:
        raise InputError(f"re-ranking needs k2 in 1 .. {rows}, the number of query and gallery rows, not {k2}")
    if not 0.0 <= weight <= 1.0:
        raise InputError(f"the weight of the original distance (lambda) must be in 0 .. 1, not {weight}")
    if distance_power not in (1, 2):
        raise InputError(
            f"distance_power must be 2 (as in deep-person-reid) or 1 (as in reid-strong-baseline), not {distance_power}"
        )
