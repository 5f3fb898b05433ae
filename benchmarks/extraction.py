"""Images per second of feature extraction, and the share of time spent waiting for data.

    python benchmarks/extraction.py --weights CHECKPOINT [--rounds 3] [KEY VALUE ...]

Query and gallery of the checkpoint's dataset are decoded once before (with INPUT.CACHE off, when they are read) and
embedded as in `tools/evaluate.py`. A round covers all images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from measuring import benchmark_parser, in_rounds, show

from reid.config import build
from reid.data.loading.loaders import TestLoader
from reid.errors.command import run_command
from reid.evaluation.features import extract
from reid.inference.conversion import load_network
from reid.model.precision import autocast_dtype


@dataclass(frozen=True, eq=False)
class TimedLoader(TestLoader):
    """A loader that records the seconds of every wait for a batch."""

    seconds: list[float] = field(default_factory=list)

    def __iter__(self) -> Iterator[torch.Tensor]:
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.seconds.append(time.perf_counter() - start)
            if batch is None:
                return
            yield batch


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=3)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_args()
    model, trained = load_network(arguments.weights)
    config = build.evaluation_config(trained, None, arguments.overrides)
    device = build.device(config)
    model, dtype = model.to(device), autocast_dtype(config.TEST.PRECISION, device)
    split = build.split(config)
    parts = [TimedLoader(**vars(build.test_loader(config, images))) for images in (split.query, split.gallery)]

    def run() -> None:
        for part in parts:
            extract(model, part, dtype=dtype)

    seconds = in_rounds({"extraction": run}, arguments.rounds)["extraction"]
    images = len(split.query) + len(split.gallery)
    waited = sum(sum(part.seconds) for part in parts) / sum(seconds)
    about = f"{split.name}, {config.MODEL.BACKBONE}, {' x '.join(map(str, config.INPUT.SIZE))}"
    row = {
        "device": str(device),
        "images": str(images),
        "seconds": ", ".join(f"{taken:.1f}" for taken in seconds),
        "images/s, best": f"{images / min(seconds):.0f}",
        "waited for data": f"{waited:.2%}",
    }
    show([row], "extraction", f"{about}, {torch.get_num_threads()} threads", arguments.save)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
