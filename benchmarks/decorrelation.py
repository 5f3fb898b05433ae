"""Time of the algebra of a round: SVD, matching and S(W).

    python benchmarks/decorrelation.py [--threads 1] [--rounds 3] [--size D_IN K ...]

A round makes one replacement and computes S(W) a few times; compare that with the time of an epoch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from measuring import benchmark_parser, in_rounds, show

from reid.decorrelation import correlation_metric, replace_weight, spectrum


def main() -> None:
    parser = benchmark_parser(__doc__, threads=1, rounds=3)
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("D_IN", "K"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = f"{arguments.threads} thread(s), medians of {arguments.rounds}"
    show(rows(arguments.size or [(512, 512), (2048, 1024)], arguments.rounds), "decorrelation", about, arguments.save)


def rows(sizes: list[tuple[int, int]], rounds: int) -> Iterator[dict[str, str]]:
    """Measure each step for each size."""
    for d_in, k in sizes:
        weight = correlated(d_in, k)
        steps: dict[str, Callable[[], object]] = {
            "replace, order sorted (the SVD alone)": partial(replace_weight, weight, order="sorted"),
            "replace, order greedy": partial(replace_weight, weight, order="greedy"),
            "replace, order assignment": partial(replace_weight, weight, order="assignment"),
            "S(W)": partial(correlation_metric, weight),
            "spectrum": partial(spectrum, weight),
        }
        seconds = in_rounds(steps, rounds + 1)  # the first round warms up
        medians = {name: f"{statistics.median(values[1:]):.3f}" for name, values in seconds.items()}
        yield {"seconds for": f"{d_in} x {k}", **medians}


def correlated(d_in: int, k: int) -> torch.Tensor:
    """Generate (d_in, k) float32 weights with a decaying spectrum and correlated columns, as trained weights have."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(d_in, k, generator=generator)
    shared = torch.randn(d_in, 32, generator=generator) @ torch.randn(32, k, generator=generator)
    return 0.01 * (noise + 0.2 * shared)


if __name__ == "__main__":
    main()
