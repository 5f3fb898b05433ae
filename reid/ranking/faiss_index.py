"""Approximate search in very large galleries: a FAISS index finds candidates, exact distances order them.

Rows that the index misses are not found, so the recall of every index is measured against exact search when it is
built. The index holds the gallery in float32 in memory. Requires the extra `search`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError, install_command, unknown_name
from reid.ranking import arrays
from reid.ranking.exact.first_pass import prepare_rows
from reid.ranking.exact.gallery_rows import RowSource, tile_ranges, unique_pair_distances
from reid.ranking.exact.options import ComparisonOptions, check_comparable
from reid.ranking.search import Neighbors, top_k
from reid.threads import thread_count

logger = logging.getLogger(__name__)

KINDS = ("ivf", "hnsw", "flat")

# FAISS orders by float32 distances: a row that rounding moves slightly behind the k-th is still a candidate.
_SPARE = 16
_QUERY_BATCH = 1024
# Training rows per cell; with fewer than 39 FAISS warns.
_ROWS_PER_CELL = 48
_MIN_ROWS_PER_CELL = 39
_ROWS_FOR_CENTER = 4096
_HNSW_LINKS = 32
_HNSW_PROBES = 128
# Probes are doubled until the recall is sufficient, or they take about as long as exact search with codes.
_SUFFICIENT_RECALL = 0.95
_MOST_HNSW_PROBES = 1024
_MOST_CELLS = 1 / 8
LOW_RECALL = 0.9


@dataclass(frozen=True)
class IndexOptions:
    """Kind and parameters of an index.

    Attributes:
        kind: "ivf" divides the gallery into cells by k-means, and a query searches the nearest `probes` of `cells`.
            "hnsw" is a graph, searched with `probes` candidates at a time; slower to build, faster to search. "flat"
            compares all rows in float32.
        cells: Number of cells; 0 for about 4 sqrt(G).
        probes: Cells or candidates per query, of which more find more and take longer. 0 to choose: from a 32nd of the
            cells, at least 16, or 128 candidates on, they are doubled until the recall is 0.95, up to an eighth of the
            cells or 1,024 candidates.
        k: Number of neighbors whose recall is measured, limited to the size of the gallery.
        sample: Number of rows that the recall is measured on.
        seed: Seed of that sample, of k-means and of the graph; several threads may still build different graphs.
    """

    kind: str = "ivf"
    cells: int = 0
    probes: int = 0
    k: int = 10
    sample: int = 256
    seed: int = 0

    def resolved(self, size: int) -> IndexOptions:
        """Replace the zeros for a gallery.

        Args:
            size: Number of gallery rows.

        Returns:
            Options with the chosen `cells` and `probes`.

        Raises:
            InputError: If the kind is unknown, the gallery is empty or numbers are out of range.
        """
        if self.kind not in KINDS:
            raise unknown_name("index", self.kind, KINDS)
        if not size:
            raise InputError("an index requires a gallery of at least one row")
        cells = self.cells or max(1, min(round(4 * size**0.5), size // _MIN_ROWS_PER_CELL))
        probes = self.probes or (max(16, cells // 32) if self.kind == "ivf" else _HNSW_PROBES)
        probes = min(probes, cells) if self.kind == "ivf" else probes
        for name, value in (("cells", cells), ("probes", probes), ("k", self.k), ("sample", self.sample)):
            if value < 1:
                raise InputError(f"{name} {value}: must be at least 1")
        if cells > size:
            raise InputError(f"cells {cells}: must be at most the {size} rows of the gallery")
        return dataclasses.replace(self, cells=cells, probes=probes)


@dataclass(frozen=True)
class SearchIndex:
    """A gallery and a FAISS index of it.

    Attributes:
        index: `faiss.Index` of the rows minus `center`; with "cosine" of the rows divided by their length.
        gallery: (G, D) rows that it was built from.
        metric: "euclidean" or "cosine".
        center: (D,) float32.
        k: Number of neighbors whose recall was measured.
        recall: Fraction of the exact `k` nearest that it found when it was built, 0 .. 1.
        summary: One line with kind, size, parameters and recall.
    """

    index: Any
    gallery: Any
    metric: str
    center: Any
    k: int
    recall: float
    summary: str


_DEFAULT_OPTIONS = IndexOptions()


def build_index(
    gallery: Any, options: IndexOptions = _DEFAULT_OPTIONS, *, metric: str = "euclidean", queries: Any = None
) -> SearchIndex:
    """Build an index and measure its recall.

    Args:
        gallery: (G, D) floating, as in `reid.ranking.search.top_k`; added one tile at a time.
        options: Kind and parameters.
        metric: "euclidean" or "cosine".
        queries: (Q, D) rows to measure the recall on; None for rows of the gallery, each compared with the others.

    Returns:
        Index with its measured recall.

    Raises:
        InputError: If FAISS is missing, for an unknown metric or kind, an empty gallery, numbers out of range, and for
            features as `reid.ranking.search.top_k` does.
    """
    faiss = _faiss()
    check_comparable(gallery if queries is None else queries, gallery, _comparison(metric))
    size, choose_probes = len(gallery), not options.probes
    options = options.resolved(size)
    random = np.random.default_rng(options.seed)
    source = RowSource(gallery, metric)
    trained = max(_ROWS_PER_CELL * options.cells if options.kind == "ivf" else 0, _ROWS_FOR_CENTER)
    numbers = np.sort(random.choice(size, min(size, trained), replace=False))
    rows = source[numbers]
    center = arrays.as_type(rows.mean(0), "float32")
    rows = _centered(rows, center, numbers)
    index = _empty_index(faiss, int(gallery.shape[1]), options)
    with _thread_count(faiss):
        if options.kind == "ivf":
            index.train(rows)
        del rows
        for start, stop in tile_ranges(source, title="index"):
            index.add(_centered(source[start:stop], center, np.arange(start, stop)))
    k = min(options.k, size if queries is not None else max(1, size - 1))
    built = SearchIndex(index, gallery, metric, center, k, float("nan"), "")
    most = {"ivf": round(_MOST_CELLS * options.cells), "hnsw": _MOST_HNSW_PROBES}.get(options.kind, 0)
    recall, measured, probes = _recall(built, queries, options, most if choose_probes else 0, random)
    parameters = {
        "ivf": f"{probes} of {options.cells} cells probed",
        "hnsw": f"{probes} candidates at a time",
        "flat": "all rows compared",
    }
    summary = f"{options.kind} index over {size} rows, {parameters[options.kind]}: "
    summary += f"recall@{k} {recall:.4f} on {measured} rows"
    logger.log(logging.WARNING if recall < LOW_RECALL else logging.INFO, "%s", summary)
    return dataclasses.replace(built, recall=recall, summary=summary)


def search_index(index: SearchIndex, query: Any, k: int) -> Neighbors:
    """Find the k nearest rows among the candidates of an index.

    Order, ties (by gallery index) and distances are exact among the candidates. A query with fewer than k candidates is
    answered by `top_k`, with a warning; more `probes` avoid that.

    Args:
        index: Result of `build_index`.
        query: (Q, D) floating, on the device of the gallery.
        k: Neighbors per query, 1 .. G.

    Returns:
        The neighbors, by the distances of `reid.ranking.exact.distances`.

    Raises:
        InputError: If `reid.ranking.search.top_k` raises it.
    """
    check_comparable(query, index.gallery, _comparison(index.metric))
    size = len(index.gallery)
    if not 1 <= k <= size:
        raise InputError(f"k {k}: must be in [1, {size}], at most the rows of the index")
    rows, source = RowSource(query, index.metric, "query").load(), RowSource(index.gallery, index.metric)
    indices, distances = np.full((len(rows), k), -1, dtype=np.int64), np.empty((len(rows), k))
    incomplete = np.zeros(len(rows), dtype=bool)
    for begin in range(0, len(rows), _QUERY_BATCH):
        numbers = np.arange(begin, min(begin + _QUERY_BATCH, len(rows)))
        prepared = prepare_rows(rows[numbers], index.center, side="query", integers=False, numbers=numbers).values
        with _thread_count(_faiss()):
            _, found = index.index.search(np.ascontiguousarray(arrays.to_numpy(prepared)), min(k + _SPARE, size))
        row, column = np.nonzero(found >= 0)
        candidate, row = found[row, column], row + begin
        exact = unique_pair_distances(rows, source, row, candidate)
        order = np.lexsort((candidate, exact, row))
        first = np.searchsorted(row, numbers)
        enough = np.searchsorted(row, numbers, side="right") - first >= k
        incomplete[numbers] = ~enough
        chosen = order[first[enough, None] + np.arange(k)]
        indices[numbers[enough]], distances[numbers[enough]] = candidate[chosen], exact[chosen]
    if incomplete.any():
        warnings.warn(
            f"the index found fewer than {k} rows for {int(incomplete.sum())} of {len(rows)} queries, which were "
            "searched exactly; build the index with more probes",
            stacklevel=2,
        )
        exactly = top_k(arrays.rows_of(query, np.flatnonzero(incomplete)), index.gallery, k, metric=index.metric)
        indices[incomplete], distances[incomplete] = exactly.indices, exactly.distances
    return Neighbors(indices, distances)


def _comparison(metric: str) -> ComparisonOptions:
    return ComparisonOptions(metric, first_pass="float32")


def _recall(
    index: SearchIndex, queries: Any, options: IndexOptions, most: int, random: np.random.Generator
) -> tuple[float, int, int]:
    """Return the fraction of the exact k nearest that the index finds, ties included, and on how many rows.

    Also the probes, which are doubled up to `most` while the recall is insufficient.
    """
    values = index.gallery if queries is None else queries
    chosen = np.sort(random.choice(len(values), min(options.sample, len(values)), replace=False))
    rows = arrays.rows_of(values, chosen)
    others = 0 if queries is not None else 1  # a row of the gallery finds itself
    k = min(index.k + others, len(index.gallery))
    probes = options.probes
    if k == others:
        return 1.0, len(rows), probes  # a gallery of one row
    farthest = top_k(rows, index.gallery, k, metric=index.metric).distances[:, -1:]
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = search_index(index, rows, k)
        hits = found.distances <= farthest
        if others:
            hits &= found.indices != chosen[:, None]
        recall = float(np.minimum(hits.sum(axis=1), k - others).mean() / (k - others))
        if recall >= _SUFFICIENT_RECALL or probes >= most:
            return recall, len(rows), probes
        probes = min(2 * probes, most)
        _set_probes(index.index, options.kind, probes)


def _empty_index(faiss: Any, width: int, options: IndexOptions) -> Any:
    """Return a FAISS index without rows."""
    if options.kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _HNSW_LINKS)
        index.hnsw.rng = faiss.RandomGenerator(options.seed)
        _set_probes(index, "hnsw", options.probes)
        return index
    if options.kind == "flat":
        return faiss.IndexFlatL2(width)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, options.cells)
    index.cp.seed = options.seed
    _set_probes(index, "ivf", options.probes)
    return index


def _set_probes(index: Any, kind: str, probes: int) -> None:
    """Set how many cells or candidates a search looks at; stored in the file of an index."""
    if kind == "hnsw":
        index.hnsw.efSearch = probes
    else:
        index.nprobe = probes


def _centered(rows: Any, center: Any, numbers: np.ndarray) -> np.ndarray:
    """Subtract the center in float32, which keeps the distances and their digits."""
    doubled = prepare_rows(rows, center, side="gallery", integers=False, numbers=numbers).values
    return np.ascontiguousarray(arrays.to_numpy(doubled)) * np.float32(-0.5)


@contextlib.contextmanager
def _thread_count(faiss: Any) -> Iterator[None]:
    """Let FAISS, which brings its own OpenMP, use as many threads as PyTorch."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(thread_count())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"an index requires FAISS ({error}); {install_command('search')}") from None
    return faiss
