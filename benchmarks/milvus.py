"""Time of loading and searching an index in Milvus, beside the index in a folder.

python benchmarks/milvus.py [--images 100000] [--width 512] [--queries 50] [--store milvus:URI] [--threads 1]

Without --store, Milvus Lite writes a local file. Features are synthetic, and nothing but the two stores is timed. The
filter keeps two of six cameras and half of the times. Recall@10 is the share of the exact ten nearest that are found.
A collection "benchmark" on a server is dropped at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import benchmark_parser, limit_threads, show

if TYPE_CHECKING:
    from reid.search.gallery import Crop, IndexView, IndexWriter
    from reid.search.stores import Place

_COMMIT_IMAGES = 4096  # as svdnet index does
_MODEL = "0" * 64


def main() -> None:
    parser = benchmark_parser(__doc__, images=100_000, width=512, queries=50, threads=1)
    parser.add_argument("--store", help="a server, as for svdnet index (default: Milvus Lite)")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        about = f"{arguments.images:,} x {arguments.width}, clustered, {arguments.threads} thread(s)"
        show(_compare(Path(name), arguments), "milvus", about, arguments.save)


def _compare(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    from synthetic_features import clustered

    from reid.ranking import normalize_rows
    from reid.search import milvus, stores

    queries, rows = (side.values for side in clustered(arguments.queries, arguments.images, arguments.width))
    queries, rows = normalize_rows(queries), normalize_rows(rows)
    place: Place = milvus.parse_collection(arguments.store or f"milvus:{folder / 'index.db'}", "benchmark")
    filters: tuple[dict[str, Any], ...] = (
        {},
        {"cameras": ["2", "5"], "time_range": (0.0, arguments.images / 2)},
    )
    expected: list[list[set[str]]] = []
    for title, where in (("folder, exact", folder / "index"), ("Milvus", place)):
        with stores.create_writer(where, model_id=_MODEL, dim=arguments.width, metadata={"root": str(folder)}) as index:
            loaded = _time(lambda index=index: _load(index, rows))  # type: ignore[misc]
            finish = getattr(index, "finish", None)
            # Milvus builds its index, and its recall is measured.
            finished = _time(finish) if finish else 0.0
        start = time.perf_counter()
        view = stores.open_view(where)
        view.search(queries[:1], 10)
        opened = time.perf_counter() - start
        searched = [_search(view, queries, options) for options in filters]
        found = [paths for paths, _ in searched]
        expected = expected or found
        recalls = [
            sum(len(a & b) for a, b in zip(one, exact, strict=True)) / sum(map(len, exact))
            for one, exact in zip(found, expected, strict=True)
        ]
        yield {
            "": title,
            "load, s": f"{loaded:.1f}",
            "finish, s": f"{finished:.1f}",
            "open, s": f"{opened:.2f}",
            "one search, ms": f"{searched[0][1]:.1f}",
            "filtered, ms": f"{searched[1][1]:.1f}",
            "recall@10": f"{recalls[0]:.4f}",
            "recall@10, filtered": f"{recalls[1]:.4f}",
        }
    milvus.connection.connect(place)("drop_collection")
    if not arguments.store:
        from milvus_lite.server_manager import server_manager_instance

        milvus.connection.connect.cache_clear()
        server_manager_instance.release_all()


def _load(index: IndexWriter, rows: Any) -> None:
    for start in range(0, len(rows), _COMMIT_IMAGES):
        numbers = range(start, min(start + _COMMIT_IMAGES, len(rows)))
        crops = [_crop(number) for number in numbers]
        index.commit(crops, {digest: rows[number] for (_, digest), number in zip(crops, numbers, strict=True)})


def _crop(number: int) -> tuple[Crop, bytes]:
    from reid.search.gallery import Crop, Labels

    labels = Labels(str(number // 50), str(number % 6 + 1), str(number))
    return Crop(f"{number // 50:05d}/c{number % 6 + 1}_{number}.jpg", 3000, 0, labels), hashlib.sha256(
        b"%d" % number
    ).digest()


def _search(view: IndexView, queries: Any, options: dict[str, Any]) -> tuple[list[set[str]], float]:
    """Return the paths found for each query, and the median of the milliseconds."""
    found, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        [results] = view.search(query[None], 10, **options)
        seconds.append(time.perf_counter() - start)
        found.append({result.path for result in results})
    return found, 1e3 * statistics.median(seconds)


def _time(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
