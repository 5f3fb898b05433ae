"""One query at a time in a large gallery: exact search, with and without 8-bit codes, and other libraries.

python benchmarks/large_search.py [--gallery 1000000] [--width 512] [--k 10] [--queries 10] [--rounds 5] [--threads 2]
                                  [--decay 46] [--faiss flat panorama] [--faiss-rows 1000000]

The features are synthetic, of 20 images per person. The variance of direction j is exp(-j / decay), so that by default
128 of 512 directions hold 94 % of it, as after RRI; with --decay 0 all directions have the same, and codes do not pay.
The directions are the axes, which FAISS Panorama needs and ours does not. Half of the queries show people of the
gallery. --faiss ivf and hnsw build an index as `svdnet index --faiss-beyond` does, over the first --faiss-rows rows,
which takes minutes for a million. Their recall in the table is measured among these rows, on these queries. It is lower
than what the index says, because half of the queries show people who are not in the gallery. usearch is measured if it
is installed.
Memory: 2 GB per million rows of 512, and as much for each FAISS index.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from measuring import benchmark_parser, in_rounds, limit_threads, show

if TYPE_CHECKING:
    import numpy as np

    from reid.ranking.exact.row_codes import RowCodes

SHARD_ROWS = 65_536
IMAGES_PER_PERSON = 20
Search = Callable[["np.ndarray"], "np.ndarray"]


def main() -> None:
    sizes = {"gallery": 1_000_000, "width": 512, "k": 10, "queries": 10, "rounds": 5, "threads": 2, "decay": 46}
    parser = benchmark_parser(__doc__, **sizes, faiss_rows=1_000_000)
    parser.add_argument("--faiss", nargs="*", default=["flat", "panorama"], help="flat, panorama, ivf, hnsw")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports

    import numpy as np
    import torch

    from reid.ranking.unit_search import top_k_unit_rows

    torch.set_num_threads(arguments.threads)
    query, gallery = features(arguments.queries, arguments.gallery, arguments.width, arguments.decay)
    searches, notes = ours(gallery, arguments.k)
    searches |= others(gallery, arguments.k)
    faiss_rows = min(arguments.faiss_rows, len(gallery))
    for kind in arguments.faiss:
        start = time.perf_counter()
        searches[f"FAISS {kind}"], summary = faiss_search(kind, gallery[:faiss_rows], arguments.k, arguments.threads)
        notes[f"FAISS {kind}"] = f"{summary}built in {time.perf_counter() - start:.1f} s"
        if faiss_rows < len(gallery):
            notes[f"FAISS {kind}"] += f" over {faiss_rows:,} rows"
    steps = {name: functools.partial(in_turn, search, query) for name, search in searches.items()}
    expected = {
        rows: top_k_unit_rows(query, [gallery[:rows]], arguments.k).indices for rows in (faiss_rows, len(gallery))
    }
    recall = {}
    for name, step in steps.items():
        own = expected[faiss_rows if name.startswith("FAISS") else len(gallery)]
        recall[name] = np.mean([np.isin(found, some).mean() for found, some in zip(step(), own, strict=True)])
    seconds = in_rounds(steps, arguments.rounds)
    medians = {name: 1e3 * statistics.median(times) / len(query) for name, times in seconds.items()}
    flat = medians.get("FAISS flat", medians["torch"])
    rows = [
        {
            "": name,
            "ms per query": f"{milliseconds:.1f}",
            "/ FAISS flat": f"{milliseconds / flat:.2f}",
            "recall": f"{recall[name]:.4f}",
            "built": notes.get(name, ""),
        }
        for name, milliseconds in medians.items()
    ]
    about = f"{len(gallery):,} x {arguments.width}, decay {arguments.decay}, {arguments.threads} thread(s)"
    show(rows, "large_search", about, arguments.save)


def in_turn(search: Search, query: np.ndarray) -> list[np.ndarray]:
    """Search each query by itself."""
    return [search(row) for row in query]


def features(queries: int, gallery: int, width: int, decay: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample rows of length 1; people differ as much from each other as the images of one do, times 1.5."""
    import numpy as np

    random = np.random.default_rng(0)
    scale = np.exp(-np.arange(width) / decay / 2).astype(np.float32) if decay else np.ones(width, dtype=np.float32)
    people = random.standard_normal((-(-gallery // IMAGES_PER_PERSON) + queries, width), dtype=np.float32)

    def sample(numbers: np.ndarray) -> np.ndarray:
        rows = random.standard_normal((len(numbers), width), dtype=np.float32)
        rows *= np.float32(0.4**0.5)
        rows += np.float32(0.6**0.5) * people[numbers]
        rows *= scale
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    found = np.empty((gallery, width), dtype=np.float32)
    for start in range(0, gallery, SHARD_ROWS):
        stop = min(start + SHARD_ROWS, gallery)
        found[start:stop] = sample(random.integers(0, len(people) - queries, stop - start))
    known = random.integers(0, len(people) - queries, queries // 2)
    return sample(np.concatenate([known, len(people) - 1 - np.arange(queries - len(known))])), found


def ours(gallery: np.ndarray, k: int) -> tuple[dict[str, Search], dict[str, str]]:
    """Both paths of `top_k_unit_rows`, over parts as large as the files of an index."""
    from reid.ranking.exact.row_codes import encode_rows
    from reid.ranking.unit_search import top_k_unit_rows

    parts = [gallery[start : start + SHARD_ROWS] for start in range(0, len(gallery), SHARD_ROWS)]
    start = time.perf_counter()
    codes: list[RowCodes | None] = [encode_rows(part) for part in parts]
    widths = sorted({0 if some is None else some.integers.shape[1] for some in codes})
    note = f"{' to '.join(map(str, widths))} bytes per row and 12; encoded in {time.perf_counter() - start:.1f} s"
    return {
        "exact, with codes": lambda row: top_k_unit_rows(row[None], parts, k, codes=codes).indices[0],
        "exact, plain": lambda row: top_k_unit_rows(row[None], parts, k).indices[0],
    }, {"exact, with codes": note}


def others(gallery: np.ndarray, k: int) -> dict[str, Search]:
    """One product and `topk` of PyTorch, and the exact search of usearch."""
    import torch

    rows = torch.from_numpy(gallery)
    found: dict[str, Search] = {"torch": lambda row: (rows @ torch.from_numpy(row)).topk(k).indices.numpy()}
    with contextlib.suppress(ImportError):
        from usearch.index import MetricKind, search

        found["usearch"] = lambda row: search(gallery, row, k, MetricKind.IP, exact=True).keys
    return found


def faiss_search(kind: str, gallery: np.ndarray, k: int, threads: int) -> tuple[Search, str]:
    """Build an index of FAISS: an exact one, or one of this project, which describes itself."""
    import faiss

    from reid.ranking.faiss_index import IndexOptions, build_index, search_index

    faiss.omp_set_num_threads(threads)
    if kind in ("flat", "panorama"):
        levels = 8
        index: Any = faiss.IndexFlatL2(gallery.shape[1])
        if kind == "panorama":
            index = faiss.IndexFlatL2Panorama(gallery.shape[1], levels)
        index.add(gallery)
        return lambda row: index.search(row[None], k)[1][0], ""
    built = build_index(gallery, IndexOptions(kind, k=k, sample=64))
    return lambda row: search_index(built, row[None], k).indices[0], f"{built.summary}; "


if __name__ == "__main__":
    main()
