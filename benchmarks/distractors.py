"""Evaluation with a gallery on disk, such as Market-1501 with its 500,000 distractors: time and memory.

    python benchmarks/distractors.py [--queries 3368] [--gallery 515913] [--width 512] [--threads 1] [--rounds 3]
                                     [--folder FOLDER]

The gallery is generated into a temporary `.npy` file under --folder, by default the system's temporary folder, and
deleted at the end: 1.06 GB, or 2.08 GB with --gallery 1015913. It is read as a memory map. The floor is the float32
matrix product with the gallery read in the same way, one tile at a time.

Every round runs each candidate in its own process; medians, and ratios within a round, are reported. Memory is the peak
of a process without mapped pages and the libraries' code.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import BLOCK, Peak, benchmark_parser, in_process, limit_threads, median_ratio, show
from ranking import FIRST_PASSES, warm_up
from synthetic_features import FeatureModel, clustered, load, save

if TYPE_CHECKING:
    import numpy as np

# Gallery images of Market-1501 without its junk; all further ones are distractors.
MARKET = 15913
STEPS = ("matrix product", *FIRST_PASSES)
_TILE_BYTES = 1 << 24
_ROWS_PER_STEP = 16384


def main() -> None:
    parser = benchmark_parser(__doc__, queries=3368, gallery=515913, width=512, threads=1, rounds=3)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports
    from reid.progress import track

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        generate(folder, arguments.queries, arguments.gallery, arguments.width)
        rounds: dict[str, list[dict[str, Any]]] = {step: [] for step in STEPS}
        for step in track(STEPS * arguments.rounds, "measuring"):
            rounds[step].append(in_process(measure, folder, step))
    about = f"{arguments.queries} x {arguments.gallery} x {arguments.width}, {arguments.threads} thread(s)"
    rows = [row(found, rounds["matrix product"]) for found in rounds.values()]
    show(rows, f"distractors_{arguments.gallery}", f"{about}, medians of {arguments.rounds}", arguments.save)


def row(found: list[dict[str, Any]], floor: list[dict[str, Any]]) -> dict[str, str]:
    """Summarize the rounds of a candidate."""
    seconds = [run["seconds"] for run in found]
    return {
        "": found[0]["name"],
        "seconds": f"{statistics.median(seconds):.2f}",
        "/ product": f"{median_ratio(seconds, [run['seconds'] for run in floor]):.3f}",
        "recomputed": found[0]["recomputed"],
        "GB in all": f"{max(run['memory'] for run in found) / 1e9:.3f}",
        "rank-1": found[0]["scores"][0],
        "mAP": found[0]["scores"][1],
    }


def generate(folder: Path, queries: int, gallery: int, width: int) -> None:
    """Write features of the size of Market-1501, followed by distractors."""
    import numpy as np

    query, first = clustered(queries, min(gallery, MARKET), width)
    save(folder, query, first)
    from reid.progress import track

    values = np.lib.format.open_memmap(
        folder / "gallery.npy", mode="w+", dtype=np.float32, shape=(gallery, width), version=(1, 0)
    )
    values[: len(first.values)] = first.values
    labels = np.zeros((2, gallery), dtype=np.int64)
    labels[:, : len(first.values)] = first.identities, first.cameras
    rng = np.random.default_rng(0)
    model = FeatureModel.sample(width, rng)  # the same as above, from the same seed
    rng = np.random.default_rng(1)
    for start in track(range(len(first.values), gallery, _ROWS_PER_STEP), "generating"):
        rows = slice(start, min(start + _ROWS_PER_STEP, gallery))
        images = model.images(np.zeros(rows.stop - start, dtype=np.int64), rng)
        values[rows], labels[1, rows] = images.values, images.cameras
    values.flush()
    np.save(folder / "gallery_labels.npy", labels)


def measure(folder: Path, step: str) -> dict[str, Any]:
    """Measure one candidate once, for a fresh process."""
    from reid.ranking import rank_matches

    warm_up("float32" if step == "matrix product" else step)
    with Peak() as peak:
        query, gallery = load(folder, mapped=True)
        start = time.perf_counter()
        if step == "matrix product":
            streamed_product(query.values, gallery.values)
            seconds = time.perf_counter() - start
            row = {"name": step, "recomputed": "", "scores": ("", "")}
        else:
            ranking = rank_matches(query, gallery, first_pass=step)
            scores = ranking.scores()
            seconds = time.perf_counter() - start
            assert ranking.work is not None
            share = f"{100 * ranking.work.recomputed / ranking.work.pairs:.4f} %"
            row = {"name": f"evaluate, {ranking.work.first_pass}", "recomputed": share}
            row["scores"] = (f"{scores.rank1:.4f}", f"{scores.mAP:.4f}")
    return {**row, "seconds": seconds, "memory": peak.peak}


def streamed_product(query: np.ndarray, gallery: np.ndarray) -> None:
    """Compute all inner products, one tile of the gallery at a time."""
    import numpy as np

    step = max(1, _TILE_BYTES // (4 * gallery.shape[1]))
    buffer = np.empty(BLOCK * step, dtype=np.float32)
    for first in range(0, len(gallery), step):
        tile = np.array(gallery[first : first + step])
        for start in range(0, len(query), BLOCK):
            rows = query[start : start + BLOCK]
            np.matmul(rows, tile.T, out=buffer[: len(rows) * len(tile)].reshape(len(rows), len(tile)))


if __name__ == "__main__":
    main()
