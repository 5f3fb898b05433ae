"""Cost of the evaluation relative to its floor, the float32 matrix product of the same features.

    python benchmarks/ranking.py [--queries 3368] [--gallery 15913] [--width 2048] [--threads 1] [--rounds 3]
                                 [--features FILE] [--torchreid CLONE] [--fastreid CLONE] [--collapsed]

The default is the size of Market-1501 without its junk. The product, the distances and the evaluation with either
first pass are timed alternately in one process; medians, and ratios within a round, are reported. The ranking step is
the time of a float32 evaluation beyond `distance_blocks`. Memory is the peak of one evaluation beyond the features,
each in its own process.

--features: saved features, in any layout that `tools/evaluate.py` reads. Junk is only passed to the evaluation, not to
the product and the competitors.
--collapsed: only compare features with many ties, such as those of a diverged training, with ordinary ones of the same
size and labels, in CPU seconds.
--torchreid, --fastreid: clones of these projects, whose rank evaluations are measured for comparison.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import (
    BLOCK,
    Peak,
    benchmark_parser,
    in_process,
    in_rounds,
    limit_threads,
    matrix_product,
    median_ratio,
    show,
)
from synthetic_features import clustered, load, save, without_junk

if TYPE_CHECKING:
    import numpy as np
    from competitors import Cost

    from reid.ranking.metrics import Ranking
    from reid.records import Features

FIRST_PASSES = ("float32", "integers")


def main() -> None:
    parser = benchmark_parser(__doc__, queries=3368, gallery=15913, width=2048, threads=1, rounds=3)
    parser.add_argument("--features", type=Path, metavar="FILE")
    parser.add_argument("--torchreid", type=Path, metavar="CLONE")
    parser.add_argument("--fastreid", type=Path, metavar="CLONE")
    parser.add_argument("--collapsed", action="store_true")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports

    from reid.io.feature_files import read_features

    if arguments.features:
        query, gallery, _ = read_features(arguments.features)
    else:
        query, gallery = clustered(arguments.queries, arguments.gallery, arguments.width)
    save_to, threads = arguments.save, f"{arguments.threads} thread(s)"
    if arguments.collapsed:
        about = f"{len(query.values)} x {len(gallery.values)} x {query.values.shape[1]}, {threads}"
        show(collapsed_costs(query, gallery), "collapsed", about, save_to)
        return
    clean = without_junk(gallery)
    (queries, width), rows, junk = query.values.shape, len(clean.identities), len(gallery.identities)
    about = f"{queries} x {rows} x {width} and {junk - rows} junk rows, {threads}, medians of {arguments.rounds}"
    name = f"ranking_{width}"
    seconds, rankings = timed(query, gallery, clean, arguments.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder, query, gallery)
        extra = {step: in_process(memory, folder, step) for step in ("matrix product", *FIRST_PASSES)}
        show(costs(seconds, rankings, extra), name, about, save_to)
        print(f"\nranking step: {ranking_step(seconds):.3f} s beyond the distances, ", end="")
        print(f"{ranking_step(seconds, 'matrix product'):.3f} s beyond the product")
        clones = {"torchreid": arguments.torchreid, "fast-reid": arguments.fastreid}
        if any(clones.values()):
            from competitors import compare

            save(folder, query, clean)
            found = (compare(name, clone, folder, arguments.rounds) for name, clone in clones.items() if clone)
            ranking = ranking_step(seconds)
            rows_of_others = (competitor(*one, ranking) for evaluations in found for one in evaluations.items())
            show(rows_of_others, f"{name}_others", about, save_to)


def collapsed_costs(query: Features, gallery: Features) -> Iterator[dict[str, str]]:
    """Measure what features with many ties cost, relative to ordinary and to random features."""
    from reid.ranking import rank_matches
    from reid.records import Features

    warm_up("auto")
    floors: list[float] = []
    for name, (first, second) in collapsed_features(query, gallery).items():
        sides = Features(first, query.identities, query.cameras), Features(second, gallery.identities, gallery.cameras)
        start = time.process_time()
        work = rank_matches(*sides).work
        seconds = time.process_time() - start
        floors += [seconds] if len(floors) < 2 else []
        assert work is not None
        yield {
            "features": name,
            "CPU seconds": f"{seconds:.2f}",
            "/ ordinary": f"{seconds / floors[0]:.2f}",
            "/ random": f"{seconds / floors[-1]:.2f}",
            "recomputed": f"{100 * work.recomputed / work.pairs:.3f} %",
            "first pass": work.first_pass,
        }


def collapsed_features(query: Features, gallery: Features) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ordinary, random and collapsed values for both sides."""
    import numpy as np

    rng, width = np.random.default_rng(0), query.values.shape[1]
    row, clusters = rng.normal(size=width), rng.normal(size=(5, width))

    def far(rows: int) -> np.ndarray:
        values = rng.normal(size=(rows, width))
        values[0] *= 1e6
        return values

    cases: dict[str, Callable[[int], np.ndarray]] = {
        "random": lambda rows: rng.normal(size=(rows, width)),
        "all rows equal": lambda rows: np.tile(row, (rows, 1)),
        "equal but for noise of 1e-6": lambda rows: row * (1 + 1e-6 * rng.normal(size=(rows, width))),
        "equal but for the last bit": lambda rows: row * (1 + 6e-8 * rng.integers(-1, 2, (rows, width))),
        "five clusters of equal rows": lambda rows: clusters[rng.integers(0, 5, rows)],
        "five clusters, last bits differ": lambda rows: (
            clusters[rng.integers(0, 5, rows)] * (1 + 6e-8 * rng.integers(-1, 2, (rows, width)))
        ),
        "binary": lambda rows: rng.integers(0, 2, (rows, width)),
        "binary, 8 wide": lambda rows: rng.integers(0, 2, (rows, 8)),
        "one row far from all others": far,
    }
    sizes = len(query.identities), len(gallery.identities)
    found = {name: [draw(rows).astype(np.float32) for rows in sizes] for name, draw in cases.items()}
    return {"ordinary": (query.values, gallery.values), **{name: (some[0], some[1]) for name, some in found.items()}}


def timed(
    query: Features, gallery: Features, clean: Features, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Ranking]]:
    """Seconds of every candidate in every round, and the rankings of the evaluations."""
    from reid.ranking import distance_blocks, rank_matches

    found: dict[str, Ranking] = {}

    def distances() -> None:
        for _ in distance_blocks(query.values, clean.values, block=BLOCK):
            pass

    def evaluation(first_pass: str) -> Callable[[], None]:
        def run() -> None:
            found[first_pass] = rank_matches(query, gallery, first_pass=first_pass)
            found[first_pass].scores()

        return run

    steps: dict[str, Callable[[], object]] = {
        "matrix product": lambda: matrix_product(query.values, clean.values),
        "distances": distances,
        **{name: evaluation(name) for name in FIRST_PASSES},
    }
    warm_up(*FIRST_PASSES)
    return in_rounds(steps, rounds), found


def costs(
    seconds: dict[str, list[float]], rankings: dict[str, Ranking], extra: dict[str, float | None]
) -> Iterator[dict[str, str]]:
    floor = seconds["matrix product"]
    for name, values in seconds.items():
        held = extra.get(name)
        row = {
            "": name,
            "seconds": f"{statistics.median(values):.3f}",
            "/ product": f"{median_ratio(values, floor):.3f}",
            "recomputed": "",
            "extra GB": "" if held is None else f"{held / 1e9:.3f}",
            "rank-1": "",
            "mAP": "",
        }
        if name in rankings:
            work, scores = rankings[name].work, rankings[name].scores()
            assert work is not None
            row[""] = f"evaluate, {work.first_pass}"
            row["recomputed"] = f"{100 * work.recomputed / max(1, work.pairs):.4f} %"
            row |= {"rank-1": f"{scores.rank1:.4f}", "mAP": f"{scores.mAP:.4f}"}
        yield row


def competitor(name: str, cost: Cost | None, ours: float) -> dict[str, str]:
    heads = ("distance s", "ranking s", "extra GB", "total / product", "ranking / ours", "rank-1", "mAP")
    if cost is None:
        return {"": name, **dict.fromkeys(heads, ""), "distance s": "killed by the system"}
    distance, ranking = statistics.median(cost.distance), statistics.median(cost.ranking)
    total = [first + second for first, second in zip(cost.distance, cost.ranking, strict=True)]
    cells = [f"{distance:.2f}", f"{ranking:.2f}", f"{cost.extra / 1e9:.2f}", f"{median_ratio(total, cost.product):.2f}"]
    cells += [f"{ranking / ours:.1f}", f"{cost.rank1:.4f}", f"{cost.mAP:.4f}"]
    return {"": name, **dict(zip(heads, cells, strict=True))}


def ranking_step(seconds: dict[str, list[float]], less: str = "distances") -> float:
    """Median over rounds of the time of the float32 evaluation beyond the distances, or another step."""
    return statistics.median(a - b for a, b in zip(seconds["float32"], seconds[less], strict=True))


def memory(folder: Path, step: str) -> float:
    """Peak bytes of one candidate beyond the features; for a fresh process."""
    from reid.ranking import rank_matches

    query, gallery = load(folder)
    warm_up("float32" if step == "matrix product" else step)
    with Peak() as peak:
        if step == "matrix product":
            matrix_product(query.values, gallery.values)
        else:
            rank_matches(query, gallery, first_pass=step).scores()
    return peak.extra


def warm_up(*first_passes: str) -> None:
    """Run these first passes once, so that libraries are loaded and caches filled."""
    from reid.ranking import rank_matches

    for name in first_passes:
        rank_matches(*clustered(64, 256, 64), first_pass=name)


if __name__ == "__main__":
    main()
