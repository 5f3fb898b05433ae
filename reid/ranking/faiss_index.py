"""Search in galleries that have outgrown exact search: a FAISS index finds candidates, exact distances order them.

What the index overlooks stays overlooked, so every index is asked for the neighbors of some rows when it is built, and
tells how many of the exact ones it found. It holds the gallery in float32 in memory; needs the extra `search`.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError, unknown_name
from reid.ranking import arrays
from reid.ranking.exact.first_pass import prepare
from reid.ranking.exact.gallery_rows import Source, pair_distances, stretches
from reid.ranking.exact.ranks import check_sides
from reid.ranking.search import Neighbors, top_k

logger = logging.getLogger(__name__)

KINDS = ("ivf", "hnsw", "flat")

# FAISS orders by float32 distances: a row that rounding puts a few places behind the k-th is still a candidate.
_SPARE = 16
_QUERIES_AT_ONCE = 1024
# Training rows a cell; with fewer than 39 FAISS warns.
_ROWS_A_CELL = 48
_FEWEST_A_CELL = 39
_ROWS_FOR_CENTER = 4096
_LINKS = 32
_WALK = 128
_LOW_RECALL = 0.9


@dataclass(frozen=True)
class SearchIndex:
    """A gallery and a FAISS index over it.

    index: the `faiss.Index` of the rows less `center`; where the metric is cosine, of the rows divided by their length.
    gallery: (G, D), what it was built over. recall: share of the exact `k` nearest that it found when it was built,
    0 .. 1. summary: a line that tells its kind, size, settings and recall.
    """

    index: Any
    gallery: Any
    metric: str
    centre: Any
    k: int
    recall: float
    summary: str


def build_index(
    gallery: Any,
    *,
    metric: str = "euclidean",
    kind: str = "ivf",
    cells: int = 0,
    probes: int = 0,
    k: int = 10,
    queries: Any = None,
    sample: int = 256,
    seed: int = 0,
) -> SearchIndex:
    """Build an index and measure its recall.

    gallery: (G, D) floating, as in `reid.ranking.search.top_k`; added tile by tile.
    kind: "ivf": the gallery is divided into cells by k-means, and a query looks into the nearest `probes` of `cells`.
    "hnsw": a graph, walked with `probes` candidates in hand; slower to build, quicker to search. "flat": all rows, to
    float32's precision. 0 chooses `cells` (about 4 sqrt(G)) and `probes` (a 32nd of the cells, at least 16; 128 for
    the graph): more of them find more and take longer.
    k, queries, sample: recall is measured for the `k` nearest of `sample` rows drawn from `queries` (Q, D); None draws
    them from the gallery, where each itself is left out. `k` is cut to what there is. seed: of that sample, k-means and
    the graph; several threads may still build different graphs.

    Raises InputError where FAISS is missing, for an unknown metric or kind, an empty gallery, numbers out of range, and
    as `top_k` does for features.
    """
    faiss = _faiss()
    check_sides(gallery if queries is None else queries, gallery, metric, 1, "float32")
    if kind not in KINDS:
        raise unknown_name("index", kind, KINDS)
    size = len(gallery)
    if not size:
        raise InputError("an index needs a gallery of at least one row")
    cells = cells or max(1, min(round(4 * size**0.5), size // _FEWEST_A_CELL))
    probes = min(probes or max(16, cells // 32), cells) if kind == "ivf" else probes or _WALK
    for name, value in (("cells", cells), ("probes", probes), ("k", k), ("sample", sample)):
        if value < 1:
            raise InputError(f"an index with {name} = {value}: must be at least 1")
    if cells > size:
        raise InputError(f"{cells} cells for a gallery of {size} rows: each needs a row of its own")
    random = np.random.default_rng(seed)
    source = Source(gallery, metric)
    wanted = max(_ROWS_A_CELL * cells if kind == "ivf" else 0, _ROWS_FOR_CENTER)
    trained = np.sort(random.choice(size, min(size, wanted), replace=False))
    rows = source[trained]
    centre = arrays.as_type(rows.mean(0), "float32")
    rows = _centered(rows, centre, trained)
    index = _empty(faiss, kind, int(gallery.shape[1]), cells, probes, seed)
    if kind == "ivf":
        index.train(rows)
    del rows
    for first, stop in stretches(source, title="index"):
        index.add(_centered(source[first:stop], centre, np.arange(first, stop)))
    k = min(k, size if queries is not None else max(1, size - 1))
    built = SearchIndex(index, gallery, metric, centre, k, float("nan"), "")
    recall, asked = _recall(built, queries, sample, random)
    settings = {
        "ivf": f"{probes} of {cells} cells probed",
        "hnsw": f"{probes} candidates in hand",
        "flat": "all compared",
    }
    summary = f"{kind} index over {size} rows, {settings[kind]}: recall@{k} {recall:.4f} on {asked} rows"
    logger.log(logging.WARNING if recall < _LOW_RECALL else logging.INFO, "%s", summary)
    return SearchIndex(index, gallery, metric, centre, k, recall, summary)


def search(index: SearchIndex, query: Any, k: int) -> Neighbors:
    """The k nearest rows among those that the index finds, by the exact distances of `reid.ranking.exact.distances`.

    query: (Q, D), where the gallery is. Order, ties (by gallery index) and distances are exact among what was found. A
    query for which the index finds fewer than k rows is answered by `top_k`, with a warning: raise `probes` then.
    Raises InputError as `top_k` does.
    """
    check_sides(query, index.gallery, index.metric, 1, "float32")
    size = len(index.gallery)
    if not 1 <= k <= size:
        raise InputError(f"the {k} nearest of an index over {size} rows were asked for: k must be 1 .. {size}")
    rows, source = Source(query, index.metric, "query").all(), Source(index.gallery, index.metric)
    indices, distances = np.full((len(rows), k), -1, dtype=np.int64), np.empty((len(rows), k))
    few = np.zeros(len(rows), dtype=bool)
    for begin in range(0, len(rows), _QUERIES_AT_ONCE):
        numbers = np.arange(begin, min(begin + _QUERIES_AT_ONCE, len(rows)))
        asked = prepare(rows[numbers], index.centre, side="query", integers=False, numbers=numbers).values
        _, found = index.index.search(np.ascontiguousarray(arrays.host(asked)), min(k + _SPARE, size))
        row, column = np.nonzero(found >= 0)
        place, row = found[row, column], row + begin
        exact = pair_distances(rows, source, row, place)
        order = np.lexsort((place, exact, row))
        first = np.searchsorted(row, numbers)
        enough = np.searchsorted(row, numbers, side="right") - first >= k
        few[numbers] = ~enough
        chosen = order[first[enough, None] + np.arange(k)]
        indices[numbers[enough]], distances[numbers[enough]] = place[chosen], exact[chosen]
    if few.any():
        warnings.warn(
            f"the index found fewer than {k} rows for {int(few.sum())} of {len(rows)} queries, which were answered by "
            "exact search; build it with more probes",
            stacklevel=2,
        )
        exactly = top_k(arrays.rows_of(query, np.flatnonzero(few)), index.gallery, k, metric=index.metric)
        indices[few], distances[few] = exactly.indices, exactly.distances
    return Neighbors(indices, distances)


def _recall(index: SearchIndex, queries: Any, sample: int, random: np.random.Generator) -> tuple[float, int]:
    """The share of the exact k nearest that the index finds, and of how many rows. Any of equally near rows will do."""
    values = index.gallery if queries is None else queries
    chosen = np.sort(random.choice(len(values), min(sample, len(values)), replace=False))
    rows = arrays.rows_of(values, chosen)
    others = 0 if queries is not None else 1  # a row of the gallery finds itself
    k = min(index.k + others, len(index.gallery))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search(index, rows, k)
    farthest = top_k(rows, index.gallery, k, metric=index.metric).distances[:, -1:]
    if k == others:
        return 1.0, len(rows)  # a gallery of one row
    hits = found.distances <= farthest
    if others:
        hits &= found.indices != chosen[:, None]
    return float(np.minimum(hits.sum(axis=1), k - others).mean() / (k - others)), len(rows)


def _empty(faiss: Any, kind: str, width: int, cells: int, probes: int, seed: int) -> Any:
    """An index of that kind without rows."""
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _LINKS)
        index.hnsw.rng = faiss.RandomGenerator(seed)
        index.hnsw.efSearch = probes
        return index
    if kind == "flat":
        return faiss.IndexFlatL2(width)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, cells)
    index.cp.seed = seed
    index.nprobe = probes
    return index


def _centered(rows: Any, centre: Any, numbers: np.ndarray) -> np.ndarray:
    """Gallery rows less the center, float32 on the host; the distances stay, and keep their digits."""
    doubled = prepare(rows, centre, side="gallery", integers=False, numbers=numbers).values
    return np.ascontiguousarray(arrays.host(doubled)) * np.float32(-0.5)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"an index needs FAISS ({error}); pip install 'reid[search]'") from None
    return faiss
