"""Forward and backward time of the locally connected and the tiled layer, compared with an equivalent nn.Conv2d.

    python benchmarks/connection.py [--threads 1] [--rounds 5] [--batch 64] [--only NAME]

The shapes are those of DeepFace's three local layers and of the 3x3 layers in OSNet's blocks for images of 256 x 128. A
ratio is the median over rounds of a layer's time divided by that of the convolution in the same round. Gradients are
computed for the input and the weights.
"""

from __future__ import annotations

import math
import statistics

import torch
from measuring import benchmark_parser, in_rounds, median_ratio, show, training_step
from torch import nn

from reid.model.connection import LocallyConnected2d, TiledConv2d

# name: channels in and out, size of the map, kernel, stride, padding
SHAPES: dict[str, tuple[int, int, tuple[int, int], int, int, int]] = {
    "DeepFace L4": (16, 16, (63, 63), 9, 1, 0),
    "DeepFace L5": (16, 16, (55, 55), 7, 2, 0),
    "DeepFace L6": (16, 16, (25, 25), 5, 1, 0),
    "OSNet-x0.25 conv2": (16, 16, (64, 32), 3, 1, 1),
    "OSNet-x0.25 conv3": (24, 24, (32, 16), 3, 1, 1),
    "OSNet-x0.25 conv4": (32, 32, (16, 8), 3, 1, 1),
    "OSNet-x1.0 conv2": (64, 64, (64, 32), 3, 1, 1),
    "OSNet-x1.0 conv3": (96, 96, (32, 16), 3, 1, 1),
    "OSNet-x1.0 conv4": (128, 128, (16, 8), 3, 1, 1),
}


def main() -> None:
    parser = benchmark_parser(__doc__, threads=1, rounds=5, batch=64)
    parser.add_argument("--only", default="", help="only shapes whose name contains this text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = f"{arguments.threads} thread(s), batch {arguments.batch}, medians of {arguments.rounds} rounds"
    rows = (row(name, arguments.batch, arguments.rounds) for name in SHAPES if arguments.only in name)
    show(rows, "connection", about, arguments.save)


def row(name: str, batch: int, rounds: int) -> dict[str, str]:
    """Measure one row of the table."""
    channels, outputs, size, kernel, stride, padding = SHAPES[name]
    maps = torch.randn(batch, channels, *size, requires_grad=True)
    layers: dict[str, nn.Module] = {
        "convolution": nn.Conv2d(channels, outputs, kernel, stride=stride, padding=padding),
        "tiled": TiledConv2d(channels, outputs, kernel, stride=stride, padding=padding, tile=2),
        "local": LocallyConnected2d(channels, outputs, kernel, stride=stride, padding=padding, input_size=size),
    }
    with torch.no_grad():
        gradient = torch.randn_like(layers["convolution"](maps))
    steps = {part: training_step(layer, maps, gradient) for part, layer in layers.items()}
    seconds = in_rounds(steps, rounds + 1)
    seconds = {part: values[1:] for part, values in seconds.items()}  # the first round warms up
    median = {part: statistics.median(values) for part, values in seconds.items()}
    tiled, local = (median_ratio(seconds[part], seconds["convolution"]) for part in ("tiled", "local"))
    arithmetic = batch * channels * kernel**2 * math.prod(gradient.shape[1:]) / 1e9
    return {
        "layer": name,
        "G multiply-adds": f"{arithmetic:.2f}",
        "convolution, s": f"{median['convolution']:.4f}",
        "tiled t = 2, s": f"{median['tiled']:.4f}",
        "tiled / convolution": f"{tiled:.1f}",
        "local, s": f"{median['local']:.4f}",
        "local / convolution": f"{local:.1f}",
    }


if __name__ == "__main__":
    main()
