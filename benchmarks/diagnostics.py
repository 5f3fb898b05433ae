"""Time of a weight diagnosis: the survey of a ResNet-50, and one large layer.

    python benchmarks/diagnostics.py [--threads 2] [--size 4096 4096]

The weights are random, with the shapes of torchvision's ResNet-50 and of one linear layer; the time does not depend on
their values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import torch
import torchvision

from reid.diagnostics.survey import find_layers, survey
from reid.diagnostics.weights import Layer, diagnose_layer

Result = TypeVar("Result")


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
    _, seconds = timed(lambda: survey(layers))
    print(f"survey of ResNet-50, {len(layers)} weights: {seconds:6.1f} s")
    _, seconds = timed(lambda: survey([large]))
    print(f"survey of one {d_in} x {k}:           {seconds:6.1f} s")
    _, seconds = timed(lambda: diagnose_layer(large))
    print(f"diagnosis of one {d_in} x {k}:        {seconds:6.1f} s")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result of `work` and the seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    main()
