"""What the evaluation costs against its floor, the plain float32 matrix product of the same features.

    python benchmarks/ranking.py [--queries 3368] [--gallery 15913] [--width 2048] [--threads 1] [--rounds 3]
                                 [--features FILE] [--torchreid CLONE] [--fastreid CLONE]

The default is the size of Market-1501 without its junk. The product, the distances and the evaluation with either first
pass are timed in this one process, in turns: told are medians, and ratios within a turn. The ranking step is what an
evaluation in float32 takes beyond `distance_blocks`, its products and the sums that make distances of them. Memory is
what one evaluation holds at most beyond the features, each in a process of its own.

--features: saved features, in any layout that `tools/evaluate.py` reads. Junk among them stays for the evaluation,
which leaves it out; the product and the rivals are spared it.
--torchreid, --fastreid: clones of these projects, whose rank evaluations are measured beside ours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from drawn import clustered, load, save, without_junk
from measuring import Peak, alone, in_turns, limit_threads, median_ratio

if TYPE_CHECKING:
    import numpy as np
    from rivals import Cost

    from reid.ranking.metrics import Ranking
    from reid.records import Features

BLOCK = 512
FIRST_PASSES = ("float32", "integers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 3368), ("gallery", 15913), ("width", 2048), ("threads", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--features", type=Path, metavar="FILE")
    parser.add_argument("--torchreid", type=Path, metavar="CLONE")
    parser.add_argument("--fastreid", type=Path, metavar="CLONE")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)  # hence the late imports

    from reid.io.feature_files import read_features

    if arguments.features:
        query, gallery, _ = read_features(arguments.features)
    else:
        query, gallery = clustered(arguments.queries, arguments.gallery, arguments.width)
    clean = without_junk(gallery)
    (queries, width), rows, junk = query.values.shape, len(clean.identities), len(gallery.identities)
    print(f"{queries} x {rows} x {width} and {junk - rows} junk rows, {arguments.threads} thread(s), ", end="")
    print(f"medians of {arguments.rounds}")
    seconds, rankings = timed(query, gallery, clean, arguments.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder, query, gallery)
        extra = {step: alone(memory, folder, step) for step in ("matrix product", *FIRST_PASSES)}
        tell(seconds, rankings, extra)
        clones = {"torchreid": arguments.torchreid, "fast-reid": arguments.fastreid}
        if any(clones.values()):
            from rivals import compare

            save(folder, query, clean)
            ranking = ranking_step(seconds)
            print("\n| | distance s | ranking s | extra GB | total / product | ranking / ours | rank-1 | mAP |")
            print("|---|---|---|---|---|---|---|---|")
            for rival, clone in clones.items():
                for evaluation, cost in compare(rival, clone, folder, arguments.rounds).items() if clone else ():
                    tell_rival(evaluation, cost, ranking)


def timed(
    query: Features, gallery: Features, clean: Features, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Ranking]]:
    """Seconds of every candidate in every turn, and what the evaluations found."""
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
        "matrix product": lambda: product(query.values, clean.values),
        "distances": distances,
        **{name: evaluation(name) for name in FIRST_PASSES},
    }
    warm_up(*FIRST_PASSES)
    return in_turns(steps, rounds), found


def tell(seconds: dict[str, list[float]], rankings: dict[str, Ranking], extra: dict[str, float | None]) -> None:
    floor = seconds["matrix product"]
    print("\n| | seconds | / product | recomputed | extra GB | rank-1 | mAP |")
    print("|---|---|---|---|---|---|---|")
    for name, values in seconds.items():
        held = extra.get(name)
        row = [name, f"{statistics.median(values):.3f}", f"{median_ratio(values, floor):.3f}"]
        row += ["", "" if held is None else f"{held / 1e9:.3f}", "", ""]
        if name in rankings:
            work, scores = rankings[name].work, rankings[name].scores()
            assert work is not None
            row[0] = f"evaluate, {work.first_pass}"
            row[3] = f"{100 * work.recomputed / max(1, work.pairs):.4f} %"
            row[5:] = [f"{scores.rank1:.4f}", f"{scores.mAP:.4f}"]
        print(f"| {' | '.join(row)} |")
    print(f"\nranking step: {ranking_step(seconds):.3f} s beyond the distances, ", end="")
    print(f"{ranking_step(seconds, 'matrix product'):.3f} s beyond the product")


def tell_rival(name: str, cost: Cost | None, ours: float) -> None:
    if cost is None:
        print(f"| {name} | ended by the system | | | | | | |")
        return
    distance, ranking = statistics.median(cost.distance), statistics.median(cost.ranking)
    total = [first + second for first, second in zip(cost.distance, cost.ranking, strict=True)]
    print(f"| {name} | {distance:.2f} | {ranking:.2f} | {cost.extra / 1e9:.2f} ", end="")
    print(f"| {median_ratio(total, cost.product):.2f} | {ranking / ours:.1f} | {cost.rank1:.4f} | {cost.mAP:.4f} |")


def ranking_step(seconds: dict[str, list[float]], less: str = "distances") -> float:
    """The median over turns of what the float32 evaluation takes beyond the distances, or another step."""
    return statistics.median(a - b for a, b in zip(seconds["float32"], seconds[less], strict=True))


def memory(folder: Path, step: str) -> float:
    """Bytes that one candidate holds beyond the features; for a fresh process."""
    from reid.ranking import rank_matches

    query, gallery = load(folder)
    warm_up("float32" if step == "matrix product" else step)
    with Peak() as peak:
        if step == "matrix product":
            product(query.values, gallery.values)
        else:
            rank_matches(query, gallery, first_pass=step).scores()
    return peak.extra


def warm_up(*first_passes: str) -> None:
    """Load what these first passes need of the libraries, and let it set up what it keeps."""
    from reid.ranking import rank_matches

    for name in first_passes:
        rank_matches(*clustered(64, 256, 64), first_pass=name)


def product(query: np.ndarray, gallery: np.ndarray) -> None:
    """The floor: all inner products, a block of queries at a time into one buffer."""
    import numpy as np

    buffer = np.empty((BLOCK, len(gallery)), dtype=np.float32)
    for start in range(0, len(query), BLOCK):
        rows = query[start : start + BLOCK]
        np.matmul(rows, gallery.T, out=buffer[: len(rows)])


if __name__ == "__main__":
    main()
