"""Time of building, extending and searching an index of crops, exactly and with FAISS.

python benchmarks/gallery.py [--crops 100000] [--more 1000] [--search 1000000] [--width 512] [--threads 1]
                             [--weights FILE] [--images 512]

The index is built with random features, so that only reading, hashing, writing and committing are timed. The model is
timed separately with --weights, in images per second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from measuring import benchmark_parser, limit_threads, show


def main() -> None:
    sizes = {"crops": 100_000, "more": 1000, "search": 1_000_000, "width": 512, "threads": 1}
    parser = benchmark_parser(__doc__, **sizes, queries=20, images=512)
    parser.add_argument("--weights", help="a checkpoint or demo: also time the embedder on synthetic crops")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        about = f"{arguments.width}-d, {arguments.threads} thread(s), medians of {arguments.queries} searches"
        crops, searched = f"{arguments.crops:,} crops of 3 kB, {about}", f"{arguments.search:,} rows, {about}"
        show(_time_index(Path(name), arguments), "gallery_index", crops, arguments.save)
        if arguments.search:
            show(_time_large_search(arguments), "gallery_search", searched, arguments.save)
        if arguments.weights:
            _time_embedder(Path(name), arguments)


def _time_index(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    import numpy as np

    from reid.search.gallery import Gallery, is_index, list_crops, read_snapshot, search_snapshot, update_index

    random = np.random.default_rng(0)

    def embed(paths: Sequence[str]) -> np.ndarray:
        rows = random.normal(size=(len(paths), arguments.width))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    crops, path = folder / "crops", folder / "index"
    _write_crops(crops, 0, arguments.crops)

    def run_update() -> None:
        gallery = Gallery.open(path) if is_index(path) else Gallery.create(path, model_id="random", dim=arguments.width)
        with gallery:
            update_index(gallery, list_crops(crops, "{identity}/c{camera}_{time}"), embed, progress=False)

    yield {"": "build", "seconds": f"{_time(run_update):.1f}"}
    yield {"": "update without changes", "seconds": f"{_time(run_update):.2f}"}
    _write_crops(crops, arguments.crops, arguments.more)
    yield {"": f"add {arguments.more:,}", "seconds": f"{_time(run_update):.2f}"}
    start = time.perf_counter()
    snapshot = read_snapshot(path)
    yield {"": "open to search", "seconds": f"{time.perf_counter() - start:.2f}"}
    queries = embed([""] * arguments.queries)
    search_snapshot(snapshot, queries[:1], 10)  # loads the files into memory
    seconds = [_time(lambda q=query: search_snapshot(snapshot, q[None], 10)) for query in queries]  # type: ignore[misc]
    yield {"": "one search, exact", "seconds": f"{statistics.median(seconds):.4f}"}


def _time_large_search(arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    import importlib.util

    import numpy as np
    from synthetic_features import clustered

    from reid.ranking import normalize_rows
    from reid.ranking.faiss_index import IndexOptions, build_index, search_index
    from reid.ranking.unit_search import top_k_unit_rows

    queries, rows = (side.values for side in clustered(arguments.queries, arguments.search, arguments.width))
    queries, rows = normalize_rows(queries), normalize_rows(rows)

    def row(name: str, seconds: Sequence[float], recall: str) -> dict[str, str]:
        return {"": name, "ms per search": f"{1e3 * statistics.median(seconds):.1f}", "recall@10": recall}

    top_k_unit_rows(queries[:1], [rows], 10)
    exact = [top_k_unit_rows(query[None], [rows], 10) for query in queries]
    seconds = [_time(lambda q=query: top_k_unit_rows(q[None], [rows], 10)) for query in queries]  # type: ignore[misc]
    yield row("exact", seconds, "1")
    if importlib.util.find_spec("faiss") is None:
        return
    start = time.perf_counter()
    index = build_index(rows, IndexOptions(k=10, sample=64))
    built = time.perf_counter() - start
    seconds = [_time(lambda q=query: search_index(index, q[None], 10)) for query in queries]  # type: ignore[misc]
    hits = [
        np.isin(search_index(index, query[None], 10).indices, one.indices).mean()
        for query, one in zip(queries, exact, strict=True)
    ]
    yield row(f"FAISS: {index.summary}; built in {built:.0f} s", seconds, f"{np.mean(hits):.4f}")


def _time_embedder(folder: Path, arguments: argparse.Namespace) -> None:
    import numpy as np
    from PIL import Image

    from reid import Embedder

    embedder = Embedder.load(arguments.weights, device="cpu")
    random, paths = np.random.default_rng(0), []
    for number in range(arguments.images):
        small = Image.fromarray(random.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        paths.append(str(folder / f"{number}.jpg"))
        small.resize((64, 128), Image.Resampling.BICUBIC).save(paths[-1])
    embedder.embed(paths[:64])
    seconds = _time(lambda: embedder.embed(paths))
    print(f"\nembedder: {len(paths) / seconds:.0f} images/s of 128 x 64, resized to {embedder.size}")


def _write_crops(folder: Path, first: int, count: int) -> None:
    """Write files of random bytes, which are never decoded."""
    import numpy as np

    for number in range(first, first + count):
        path = folder / f"{number // 50:05d}" / f"c{number % 6 + 1}_{number}.jpg"
        if number % 50 == 0 or number == first:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.random.default_rng(number).bytes(3000))


def _time(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
