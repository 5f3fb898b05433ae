"""Throughput from JPEGs to embeddings on a CPU: `reid.Embedder` and torchreid's FeatureExtractor.

    python benchmarks/embedding.py --torchreid CLONE --weights FILE [--images FOLDER] [--count 2000] [--rounds 3]
                                   [--threads N] [--steps]

FILE is a checkpoint of OSNet-x0.25 with torchreid's tensor names, such as its published ImageNet weights; both load it
and resize to 256 x 128. `--images` reads JPEGs from a folder, such as Market-1501's bounding_box_test, instead of
generating them. Both use the same number of threads and, where the system supports it, are restricted to as many
processors (default: all). They run alternately, and the ratio is the median over rounds. torchreid receives its list in
parts of 64, because it holds all images of a list in memory. The embeddings are compared as well. `--steps` measures
the steps of `reid`. Of the clone, only the extractor, the loading of weights and OSNet are imported.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from input import jpegs
from measuring import in_rounds, median_ratio

from reid import Embedder
from reid.data.images.decode import decode_image
from reid.errors import InputError
from reid.errors.command import run_command
from reid.threads import available_cores

BATCH = 64
PACKAGE_FOLDERS = ("torchreid", "torchreid/reid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchreid", type=Path, required=True, metavar="CLONE")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--images", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    torch.set_num_threads(arguments.threads)
    ours, competitor = (
        Embedder.load(arguments.weights, device="cpu"),
        load_competitor(arguments.torchreid, arguments.weights),
    )
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(arguments.images, arguments.count, Path(folder))
        embeddings: dict[str, np.ndarray] = {}
        runs = {
            "torchreid": lambda: embeddings.update(competitor=competitor(files)),
            "reid": lambda: embeddings.update(ours=ours.embed(files, batch_size=BATCH)),
        }
        ours.embed(files[:BATCH])
        competitor(files[:BATCH])
        seconds = in_rounds(runs, arguments.rounds)
        print(
            f"{len(files)} images, {arguments.threads} threads, {arguments.rounds} rounds, OSNet-x0.25 at 256 x 128\n"
        )
        print("| embedding | images/s, median | best |\n|---|---|---|")
        for name, taken in seconds.items():
            print(f"| {name} | {len(files) / float(np.median(taken)):.1f} | {len(files) / min(taken):.1f} |")
        print(f"\ntimes torchreid: {median_ratio(seconds['torchreid'], seconds['reid']):.2f}")
        print_difference(embeddings["ours"], embeddings["competitor"])
        if arguments.steps:
            steps(ours, files[:BATCH])


def load_competitor(clone: Path, weights: Path) -> Callable[[list[str]], np.ndarray]:
    """torchreid's FeatureExtractor with the same weights; InputError if the clone does not contain it."""
    folders = (clone / name for name in PACKAGE_FOLDERS)
    package = next((folder for folder in folders if (folder / "utils/feature_extractor.py").is_file()), None)
    if package is None:
        raise InputError(
            f"{clone}: not a clone of torchreid, which contains {PACKAGE_FOLDERS[0]}/utils/feature_extractor.py"
        )
    # Import submodules without running the packages' own imports, which need further libraries.
    packages: dict[str, Any] = {}
    for name, folder in (
        ("torchreid", package),
        ("torchreid.utils", package / "utils"),
        ("torchreid.models", package / "models"),
    ):
        packages[name] = sys.modules[name] = types.ModuleType(name)
        packages[name].__path__ = [str(folder)]
    from torchreid.models import osnet  # type: ignore[import-not-found]
    from torchreid.utils import tools, torchtools  # type: ignore[import-not-found]

    packages["torchreid.utils"].check_isfile = tools.check_isfile
    packages["torchreid.utils"].load_pretrained_weights = torchtools.load_pretrained_weights
    packages["torchreid.utils"].compute_model_complexity = None
    packages["torchreid.models"].build_model = lambda name, num_classes, pretrained, use_gpu: getattr(osnet, name)(
        num_classes, pretrained=pretrained
    )
    from torchreid.utils.feature_extractor import FeatureExtractor  # type: ignore[import-not-found]

    extractor = FeatureExtractor("osnet_x0_25", str(weights), device="cpu", verbose=False)

    def embed(files: list[str]) -> np.ndarray:
        parts = [extractor(files[start : start + BATCH]) for start in range(0, len(files), BATCH)]
        return torch.cat(parts).numpy()

    return embed


def print_difference(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Print the difference of the embeddings, with rows of unit length."""
    units = theirs / np.linalg.norm(theirs.astype(np.float64), axis=1, keepdims=True)
    cosines = (ours * units).sum(axis=1)
    print(
        f"largest difference of a component {np.abs(ours - units).max():.1e}; cosine of an image's two embeddings: "
        f"mean {cosines.mean():.6f}, minimum {cosines.min():.6f}"
    )


def steps(embedder: Embedder, files: list[str]) -> None:
    """Print the milliseconds per batch of decoding and of the network, which overlap in use."""
    batch = torch.rand(len(files), 3, *embedder.size)
    parts: dict[str, Callable[[], object]] = {
        "decoding and resizing, one thread": lambda: [decode_image(file, embedder.size) for file in files],
        "network": lambda: embedder.embed(batch),
    }
    print(f"\n| step | ms per batch of {len(files)} |\n|---|---|")
    for name, taken in in_rounds(parts, 5).items():
        print(f"| {name} | {1000 * min(taken):.0f} |")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
