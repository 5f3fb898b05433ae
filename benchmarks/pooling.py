"""Forward and backward time of every pooling, compared with average pooling.

    python benchmarks/pooling.py [--threads 1] [--rounds 5] [--batch 64] [--only NAME]

The feature maps are those of OSNet-x0.25, OSNet-x1.0 and ResNet-50 for images of 256 x 128, and DeepFace's last. A
ratio is the median over rounds of a pooling's time divided by that of average pooling in the same round; gradients are
computed for the map and the weights. The VLADs have 64 clusters, 16 on the map of ResNet-50.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from measuring import benchmark_parser, in_rounds, median_ratio, show, training_step

from reid.model.pooling import POOLINGS, Pooling

# name: channels and size of the map, clusters of a VLAD
SHAPES = {
    "OSNet-x0.25": (128, (16, 8), 64),
    "OSNet-x1.0": (512, (16, 8), 64),
    "ResNet-50": (2048, (16, 8), 16),
    "DeepFace L6": (16, (21, 21), 64),
}


def main() -> None:
    parser = benchmark_parser(__doc__, threads=1, rounds=5, batch=64)
    parser.add_argument("--only", default="", help="only shapes whose name contains this text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = f"{arguments.threads} thread(s), batch {arguments.batch}, medians of {arguments.rounds} rounds"
    names = [name for name in POOLINGS if name != "average"]
    rows = (row(shape, names, arguments.batch, arguments.rounds) for shape in SHAPES if arguments.only in shape)
    show(rows, "pooling", about, arguments.save)


def row(shape: str, names: list[str], batch: int, rounds: int) -> dict[str, str]:
    """Measure one row of the table."""
    channels, size, clusters = SHAPES[shape]
    maps = torch.rand(batch, channels, *size).requires_grad_()
    poolings = {name: make(name, channels, clusters) for name in ("average", *names)}
    with torch.no_grad():
        gradients = {name: torch.randn_like(pooling(maps)) for name, pooling in poolings.items()}
    steps = {name: training_step(pooling, maps, gradients[name]) for name, pooling in poolings.items()}
    seconds = {name: values[1:] for name, values in in_rounds(steps, rounds + 1).items()}  # the first round warms up
    return {
        "map": f"{shape}, {channels}@{size[0]}x{size[1]}",
        "average, ms": f"{1e3 * statistics.median(seconds['average']):.1f}",
        **{name: f"{median_ratio(seconds[name], seconds['average']):.0f}x" for name in names},
    }


def make(name: str, channels: int, clusters: int) -> Pooling:
    """Build a pooling with its defaults."""
    options: dict[str, Any] = {"clusters": clusters, "init": "random"} if name.endswith("vlad") else {}
    return POOLINGS[name](channels, **options)


if __name__ == "__main__":
    main()
