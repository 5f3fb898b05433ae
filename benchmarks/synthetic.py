"""Speed of generating the synthetic dataset on one core, including JPEG encoding but not writing.

OMP_NUM_THREADS=1 python benchmarks/synthetic.py
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

from reid.data.synthetic.layout import plan_images
from reid.data.synthetic.rendering import Renderer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images per repetition (1000)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, the best of which is reported (3)")
    arguments = parser.parse_args()
    specs = plan_images("demo", "market", 0)
    specs = specs[:: max(1, len(specs) // arguments.images)][: arguments.images]
    rates, clocks = [], []
    for _ in range(arguments.repeat):
        renderer = Renderer(0)
        clock, busy = time.perf_counter(), time.process_time()
        for spec in specs:
            renderer.jpeg(spec)
        clocks.append(len(specs) / (time.perf_counter() - clock))
        rates.append(len(specs) / (time.process_time() - busy))
    print(f"{_processor()}, one core, Python {platform.python_version()}")
    print(f"{len(specs)} images of size demo, cameras included, best of {arguments.repeat}:")
    print(f"{max(rates):.0f} images/s of processor time, {max(clocks):.0f} images/s by the clock")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
