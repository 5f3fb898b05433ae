"""Time of a weight diagnosis: the survey of a ResNet-50, and one large layer.

    python benchmarks/diagnostics.py [--threads 2] [--size 4096 4096]

The weights are random, with the shapes of torchvision's ResNet-50 and of one linear layer; weights near a lower
rank take longer. Wall-clock and CPU seconds of all threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torchvision

from reid.diagnostics.survey import find_layers, survey
from reid.diagnostics.weights import Layer, diagnose_layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(4096, 4096), metavar=("D_IN", "K"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    d_in, k = arguments.size
    network = torchvision.models.resnet50(weights=None).state_dict()
    large = Layer("large", torch.randn(k, d_in))
    print(f"{arguments.threads} thread(s)")
    layers = find_layers(network)
    show(f"survey of ResNet-50, {len(layers)} weights", lambda: survey(layers))
    show(f"survey of one {d_in} x {k}", lambda: survey([large]))
    show(f"diagnosis of one {d_in} x {k}", lambda: diagnose_layer(large))


def show(name: str, work: Callable[[], object]) -> None:
    """Print the seconds that `work` took."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    print(f"{name:32} {time.perf_counter() - start:6.1f} s, CPU {time.process_time() - busy:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
