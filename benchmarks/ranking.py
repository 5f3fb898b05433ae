"""What the evaluation costs against its floor, the plain float32 matrix product of the same features.

    python benchmarks/ranking.py [--queries 3368] [--gallery 15913] [--width 2048] [--threads 1] [--rounds 3]

Both are measured in this one process, in turns; the medians are told. The default is the size of Market-1501 without
its junk. The memory is what one evaluation allocates beyond the features.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from reid.records import Features

BLOCK = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 3368), ("gallery", 15913), ("width", 2048), ("threads", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    # The libraries below NumPy read the number of threads when they are loaded, hence the late imports.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    from reid.ranking import distance_blocks, evaluate

    query, gallery = clustered(arguments.queries, arguments.gallery, arguments.width)

    def distances() -> None:
        for _ in distance_blocks(query.values, gallery.values, block=BLOCK):
            pass

    steps: dict[str, Callable[[], object]] = {
        "matrix product": lambda: product(query.values, gallery.values),
        "distances": distances,
        "evaluate": lambda: evaluate(query, gallery, block=BLOCK),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}

    tracemalloc.start()
    scores = evaluate(query, gallery, block=BLOCK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    print(f"{arguments.queries} x {arguments.gallery} x {arguments.width}, {arguments.threads} thread(s), ", end="")
    print(f"medians of {arguments.rounds}; rank-1 {scores.rank1:.3f}, mAP {scores.mAP:.3f}")
    for name, value in median.items():
        print(f"{name:16} {value:7.3f} s   {value / median['matrix product']:5.2f} x the product")
    print(f"{'ranking step':16} {median['evaluate'] - median['distances']:7.3f} s")
    print(f"{'memory':16} {peak / 1e9:7.3f} GB beyond the features")


def product(query: np.ndarray, gallery: np.ndarray) -> None:
    """The floor: all inner products, a block of queries at a time into one buffer."""
    import numpy as np

    buffer = np.empty((BLOCK, len(gallery)), dtype=np.float32)
    for start in range(0, len(query), BLOCK):
        rows = query[start : start + BLOCK]
        np.matmul(rows, gallery.T, out=buffer[: len(rows)])


def clustered(queries: int, gallery: int, width: int) -> tuple[Features, Features]:
    """Features of 750 identities on six cameras, about as hard as a trained network's (mAP 0.65, some answers far down).

    People come in kinds that look alike, and images differ in how far they stray from their person; both happen in 40
    directions of unequal weight, to which every dimension adds noise of its own.
    """
    import numpy as np

    from reid.records import Features

    rng = np.random.default_rng(0)
    weight = np.arange(1, 41) ** -0.3
    kinds = rng.normal(size=(75, 40))
    people = kinds[rng.integers(0, 75, 751)] + 0.3 * rng.normal(size=(751, 40))
    directions = (weight[:, None] * rng.normal(size=(40, width))).astype(np.float32)
    noise = np.float32(0.25 * np.sqrt((weight**2).sum()))

    def draw(identities: np.ndarray) -> Features:
        place = people[identities]
        alone = np.flatnonzero(identities == 0)  # every distractor is a person of its own
        place[alone] = kinds[rng.integers(0, 75, len(alone))] + 0.3 * rng.normal(size=(len(alone), 40))
        strays = 0.25 * np.exp(0.6 * rng.normal(size=(len(place), 1)))
        values = (place + strays * rng.normal(size=place.shape)).astype(np.float32) @ directions
        values += noise * rng.normal(size=values.shape).astype(np.float32)
        return Features(values, identities, rng.integers(1, 7, len(identities)))

    distractor = rng.random(gallery) < 0.18
    return draw(rng.integers(1, 751, queries)), draw(np.where(distractor, 0, rng.integers(1, 751, gallery)))


if __name__ == "__main__":
    main()
