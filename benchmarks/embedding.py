"""Throughput from JPEGs to embeddings on a CPU, by engine, beside ONNX Runtime on ready tensors and torchreid.

    python benchmarks/embedding.py [--weights FILE] [--images FOLDER] [--count 2000] [--rounds 5] [--threads N]
                                   [--torchreid CLONE] [--steps]

FILE is a checkpoint of OSNet-x0.25; without one its weights are random. All resize to 256 x 128. `--images` reads JPEGs
from a folder, such as Market-1501's bounding_box_test, instead of generating them. Every row uses the same number of
threads and, where the system supports it, is restricted to as many processors (default: all). They run alternately,
and a ratio is the median over rounds. "raw ONNX Runtime" runs the export on normalized tensors in memory, in batches of
32 whose layers the threads share: nothing is decoded. With `--torchreid`, whose FILE must have torchreid's tensor names
(such as its published ImageNet weights), its FeatureExtractor runs too; it receives its list in parts of 64, because it
holds all images of a list in memory. Of the clone, only the extractor, the loading of weights and OSNet are imported.
`--steps` measures the steps of `reid`. 2,000 images and 5 rounds take about five minutes on two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exported import load_embedder
from input import jpegs
from measuring import benchmark_parser, in_rounds, median_ratio, show
from PIL import Image

from reid import Embedder
from reid.data.images.decode import decode_image
from reid.errors import InputError
from reid.errors.command import run_command
from reid.inference.engines.export import exported_network
from reid.inference.engines.sessions import installed_versions
from reid.threads import available_cores

BATCH, RAW_BATCH = 64, 32
RAW = "raw ONNX Runtime"
PACKAGE_FOLDERS = ("torchreid", "torchreid/reid")


def main() -> None:
    parser = benchmark_parser(__doc__, count=2000, rounds=5, threads=available_cores())
    parser.add_argument("--torchreid", type=Path, metavar="CLONE")
    parser.add_argument("--weights", type=Path, metavar="FILE")
    parser.add_argument("--images", type=Path, metavar="FOLDER")
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    torch.set_num_threads(arguments.threads)
    names = ["torch", "auto", *installed_versions()]
    embedders = {name: load_embedder(arguments.weights, engine=name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(arguments.images, arguments.count, Path(folder))
        found: dict[str, np.ndarray] = {}

        def embed(name: str, paths: list[str]) -> None:
            found[name] = embedders[name].embed(paths)

        runs: dict[str, Callable[[], object]] = {f"Embedder, {name}": partial(embed, name, files) for name in names}
        runs[RAW] = raw_onnxruntime(embedders["torch"], len(files), arguments.threads)
        if arguments.torchreid:
            competitor = load_competitor(arguments.torchreid, arguments.weights)
            runs["torchreid"] = lambda: found.update(torchreid=competitor(files))
        for embedder in embedders.values():
            embedder.prepare()
        seconds = in_rounds(runs, arguments.rounds + 1)
        about = (
            f"{len(files)} images, {arguments.threads} threads, {arguments.rounds} rounds, OSNet-x0.25 at 256 x 128, "
            f"auto is {embedders['auto'].engine.name}"
        )
        seconds = {name: taken[1:] for name, taken in seconds.items()}  # the first warms up
        show(rates(seconds, len(files)), "embedding", about, arguments.save)
        for name in found:
            if name != "torch":
                print_difference(name, found["torch"], found[name])
        show(single_crops(embedders, files[:25]), "embedding_single", "one crop at a time", arguments.save)
        if arguments.steps:
            show(steps(embedders["torch"], files[:BATCH]), "embedding_steps", "steps of a batch", arguments.save)


def raw_onnxruntime(embedder: Embedder, count: int, threads: int) -> Callable[[], None]:
    """ONNX Runtime on normalized images in memory, as often as there are images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    data = exported_network(embedder.network, embedder.size, None)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    images = torch.randn(RAW_BATCH, 3, *embedder.size).numpy()

    def run() -> None:
        for start in range(0, count, RAW_BATCH):
            session.run(None, {"images": images[: count - start]})

    return run


def rates(seconds: Mapping[str, Sequence[float]], count: int) -> Iterator[dict[str, str]]:
    """Images per second, and ratios."""
    for name, taken in seconds.items():
        yield {
            "embedding": name,
            "images/s, median": f"{count / float(np.median(taken)):.1f}",
            "best": f"{count / min(taken):.1f}",
            "/ Embedder, torch": f"{median_ratio(seconds['Embedder, torch'], taken):.2f}",
            f"/ {RAW}": f"{median_ratio(seconds[RAW], taken):.2f}",
        }


def single_crops(embedders: Mapping[str, Embedder], files: Sequence[str]) -> Iterator[dict[str, str]]:
    """Measure the milliseconds of a crop by itself, as the search page embeds it, from Pillow images."""
    images = [Image.open(file).convert("RGB") for file in files]

    def one_by_one(embedder: Embedder) -> None:
        for image in images:
            embedder.embed([image])

    seconds = in_rounds({name: partial(one_by_one, embedder) for name, embedder in embedders.items()}, 4)
    for name, taken in seconds.items():
        yield {"embedding": f"Embedder, {name}", "ms": f"{1000 * float(np.median(taken[1:])) / len(images):.1f}"}


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


def print_difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Print the difference from the embeddings by PyTorch, with rows of unit length."""
    units = theirs / np.linalg.norm(theirs.astype(np.float64), axis=1, keepdims=True)
    cosines = (ours * units).sum(axis=1)
    print(
        f"{name}: largest difference of a component from torch {np.abs(ours - units).max():.1e}; cosine of an image's "
        f"two embeddings: mean {cosines.mean():.6f}, minimum {cosines.min():.6f}"
    )


def steps(embedder: Embedder, files: list[str]) -> Iterator[dict[str, str]]:
    """Measure the milliseconds per batch of decoding and of the network, which overlap in use."""
    batch = torch.rand(len(files), 3, *embedder.size)
    parts: dict[str, Callable[[], object]] = {
        "decoding and resizing, one thread": lambda: [decode_image(file, embedder.size) for file in files],
        "network": lambda: embedder.embed(batch),
    }
    for name, taken in in_rounds(parts, 5).items():
        yield {"step": name, f"ms per batch of {len(files)}": f"{1000 * min(taken):.0f}"}


if __name__ == "__main__":
    raise SystemExit(run_command(main))
