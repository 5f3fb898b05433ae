"""Time of a weight diagnosis: the survey of a ResNet-50, and one large layer.

    python benchmarks/diagnostics.py [--threads 2] [--size 4096 4096]

The weights are random, with the shapes of torchvision's ResNet-50 and of one linear layer; weights near a lower
rank take longer. Wall-clock and CPU seconds of all threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
import torchvision
from measuring import benchmark_parser, show

from reid.diagnostics.survey import find_layers, survey
from reid.diagnostics.weights import Layer, diagnose_layer


def main() -> None:
    parser = benchmark_parser(__doc__, threads=2)
    parser.add_argument("--size", type=int, nargs=2, default=(4096, 4096), metavar=("D_IN", "K"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    show(rows(*arguments.size), "diagnostics", f"{arguments.threads} thread(s), all quantities", arguments.save)


def rows(d_in: int, k: int) -> Iterator[dict[str, str]]:
    """Measure a survey and a diagnosis."""
    network = torchvision.models.resnet50(weights=None).state_dict()
    large = Layer("large", torch.randn(k, d_in))
    layers = find_layers(network)
    yield row(f"survey of ResNet-50, {len(layers)} weights", lambda: survey(layers))
    yield row(f"survey of one {d_in} x {k}", lambda: survey([large]))
    yield row(f"diagnosis of one {d_in} x {k}", lambda: diagnose_layer(large))


def row(name: str, work: Callable[[], object]) -> dict[str, str]:
    """Measure the seconds that `work` takes."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    cells = {"seconds": time.perf_counter() - start, "CPU seconds": time.process_time() - busy}
    return {"": name, **{head: f"{seconds:.1f}" for head, seconds in cells.items()}}


if __name__ == "__main__":
    main()
