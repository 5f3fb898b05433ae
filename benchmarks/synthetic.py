"""Speed of generating the synthetic dataset on one core, including JPEG encoding but not writing.

OMP_NUM_THREADS=1 python benchmarks/synthetic.py
"""

from __future__ import annotations

import platform
import time

from measuring import benchmark_parser, show

from reid.data.synthetic.layout import plan_images
from reid.data.synthetic.rendering import Renderer


def main() -> None:
    parser = benchmark_parser(__doc__, images=1000, rounds=3)
    arguments = parser.parse_args()
    specs = plan_images("demo", "market", 0)
    specs = specs[:: max(1, len(specs) // arguments.images)][: arguments.images]
    rates, clocks = [], []
    for _ in range(arguments.rounds):
        renderer = Renderer(0)
        clock, busy = time.perf_counter(), time.process_time()
        for spec in specs:
            renderer.jpeg(spec)
        clocks.append(len(specs) / (time.perf_counter() - clock))
        rates.append(len(specs) / (time.process_time() - busy))
    about = f"{len(specs)} images of size demo, cameras included, best of {arguments.rounds}, one core"
    row = {"images/s of processor time": f"{max(rates):.0f}", "images/s by the clock": f"{max(clocks):.0f}"}
    show([row], "synthetic", f"{about}, Python {platform.python_version()}", arguments.save)


if __name__ == "__main__":
    main()
