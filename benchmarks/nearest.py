"""Cost and recall of FAISS indexes compared with exact search, on a synthetic gallery.

python benchmarks/nearest.py [--queries 1000] [--gallery 100000] [--width 512] [--k 10] [--threads 1]
"""

from __future__ import annotations

import argparse
import time

from measuring import limit_threads
from synthetic_features import clustered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = (("queries", 1000), ("gallery", 100000), ("width", 512), ("k", 10), ("threads", 1))
    for name, default in defaults:
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports

    from reid.ranking.faiss_index import KINDS, IndexOptions, build_index, search_index
    from reid.ranking.search import top_k

    query, gallery = (side.values for side in clustered(arguments.queries, arguments.gallery, arguments.width))
    print(f"{len(query)} x {len(gallery)} x {arguments.width}, {arguments.threads} thread(s), k = {arguments.k}")
    print("\n| | build s | search s | recall of these queries |\n|---|---|---|---|")
    start = time.perf_counter()
    exact = top_k(query, gallery, arguments.k)
    print(f"| exact | 0 | {time.perf_counter() - start:.2f} | 1 |")
    for kind in KINDS:
        start = time.perf_counter()
        index = build_index(gallery, IndexOptions(kind, k=arguments.k))
        built = time.perf_counter()
        found = search_index(index, query, arguments.k)
        done = time.perf_counter()
        recall = (found.distances <= exact.distances[:, -1:]).mean()
        print(f"| {index.summary} | {built - start:.2f} | {done - built:.2f} | {recall:.4f} |")


if __name__ == "__main__":
    main()
