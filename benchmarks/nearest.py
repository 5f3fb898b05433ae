"""Cost and recall of FAISS indexes compared with exact search, on a synthetic gallery.

python benchmarks/nearest.py [--queries 1000] [--gallery 100000] [--width 512] [--k 10] [--threads 1]
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from measuring import benchmark_parser, limit_threads, show
from synthetic_features import clustered

if TYPE_CHECKING:
    import numpy as np


def main() -> None:
    parser = benchmark_parser(__doc__, queries=1000, gallery=100000, width=512, k=10, threads=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports
    query, gallery = (side.values for side in clustered(arguments.queries, arguments.gallery, arguments.width))
    about = f"{len(query)} x {len(gallery)} x {arguments.width}, {arguments.threads} thread(s), k = {arguments.k}"
    show(rows(query, gallery, arguments.k), "nearest", about, arguments.save)


def rows(query: np.ndarray, gallery: np.ndarray, k: int) -> Iterator[dict[str, str]]:
    """Measure exact search and every kind of index."""
    from reid.ranking.faiss_index import KINDS, IndexOptions, build_index, search_index
    from reid.ranking.search import top_k

    def row(name: str, built: float, searched: float, recall: float) -> dict[str, str]:
        cells = {"build s": f"{built:.2f}", "search s": f"{searched:.2f}", "recall of these queries": f"{recall:.4f}"}
        return {"": name, **cells}

    start = time.perf_counter()
    exact = top_k(query, gallery, k)
    yield row("exact", 0, time.perf_counter() - start, 1)
    for kind in KINDS:
        start = time.perf_counter()
        index = build_index(gallery, IndexOptions(kind, k=k))
        built = time.perf_counter()
        found = search_index(index, query, k)
        done = time.perf_counter()
        recall = float((found.distances <= exact.distances[:, -1:]).mean())
        yield row(index.summary, built - start, done - built, recall)


if __name__ == "__main__":
    main()
