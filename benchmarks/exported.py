"""Throughput of ONNX Runtime and of PyTorch on the CPU, and the difference of their embeddings.

    python benchmarks/exported.py [--weights CHECKPOINT] [--threads 1] [--rounds 7] [--batches 1 16 64] [--crops 64]

The network is OSNet-x0.25 with random weights, unless a checkpoint is given, at 256 x 128. Both take uint8 pixels,
return embeddings of unit length and use the same number of threads. They run alternately; a round embeds the same
images in batches of one size, and the ratio is the median over rounds. Differences are measured on Market-1501's query
images if REID_DATA contains them, else on synthetic ones.
"""

from __future__ import annotations

import dataclasses
import io
import os
import statistics
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import benchmark_parser, in_rounds, median_ratio, show
from PIL import Image
from torch import Tensor

from reid import Embedder
from reid.config import build
from reid.data.loading.user_images import ImageList
from reid.errors.command import run_command
from reid.inference.export.exporter import export_network
from reid.inference.export.formats import check_available, load_onnx
from reid.inference.export.interface import ExportInterface
from reid.inference.export.metadata import ModelMetadata
from reid.inference.export.sample_images import synthetic_crops
from reid.inference.export.verification import Runner, max_relative_difference
from reid.io.checkpoint import save_checkpoint

SIZE = (256, 128)
MARKET = "Market-1501-v15.09.15.zip"


def main() -> None:
    parser = benchmark_parser(__doc__, threads=1, rounds=7, crops=64)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    arguments = parser.parse_args()
    check_available("onnx")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    embedder = load_embedder(arguments.weights, engine="torch")
    name, preprocessing = embedder.config.MODEL.BACKBONE, build.preprocessing(embedder.config)
    interface = ExportInterface(SIZE, preprocessing["mean"], preprocessing["std"], preprocessing="inside")
    metadata = ModelMetadata(interface, embedder.dim, embedder.model_id, 1.0, "", name, "", "none")
    pixels, description = crops(arguments.crops)
    data, _ = export_network(embedder.network, metadata, pixels[:4], format="onnx")
    run = load_onnx(data)
    difference = max_relative_difference(run(pixels), embedder.embed(pixels))
    about = (
        f"{name}, {SIZE[0]} x {SIZE[1]}, {arguments.threads} thread(s), medians of {arguments.rounds} rounds; "
        f"largest difference on {len(pixels)} {description}: {difference:.1e}"
    )
    show(rows(embedder, run, pixels, arguments.batches, arguments.rounds), "exported", about, arguments.save)


def rows(
    embedder: Embedder, run: Runner, pixels: Tensor, batches: Sequence[int], rounds: int
) -> Iterator[dict[str, str]]:
    """Measure both for each size of a batch."""
    for batch in batches:
        parts = pixels[: max(batch, min(16, len(pixels)))].split(batch)
        images = sum(map(len, parts))
        steps = {
            "torch": partial(_run_batches, partial(embedder.embed, batch_size=batch), parts),
            "onnx": partial(_run_batches, run, parts),
        }
        seconds = {step: taken[1:] for step, taken in in_rounds(steps, rounds + 1).items()}  # the first warms up
        yield {
            "batch": str(batch),
            "PyTorch, images/s": f"{images / statistics.median(seconds['torch']):.0f}",
            "ONNX Runtime, images/s": f"{images / statistics.median(seconds['onnx']):.0f}",
            "speedup": f"{median_ratio(seconds['torch'], seconds['onnx']):.2f}",
        }


def load_embedder(weights: Path | None, engine: str) -> Embedder:
    """The model of the checkpoint at SIZE, or an OSNet-x0.25 with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        if weights is None:
            weights = Path(folder) / "random.pth"
            config = build.config_from_overrides(
                ["MODEL.BACKBONE", "osnet_x0_25", "MODEL.WEIGHTS", "none"], source="this benchmark"
            )
            torch.manual_seed(0)
            network = build.network(config, num_classes=751)
            save_checkpoint(weights, {"model": network.state_dict(), "config": config.dump(), "num_classes": 751})
        embedder = Embedder.load(weights, device="cpu", feature="input", engine=engine)
    config = build.evaluation_config(embedder.config, None, ["INPUT.SIZE", str(list(SIZE))])
    return dataclasses.replace(embedder, config=config)


def _run_batches(run: Runner, parts: Sequence[Tensor]) -> None:
    for batch in parts:
        run(batch)


def crops(count: int) -> tuple[Tensor, str]:
    """(count, 3, H, W) uint8 images, and a description of them."""
    archive_path = Path(os.environ.get("REID_DATA") or "datasets") / MARKET
    if not archive_path.is_file():
        return synthetic_crops(SIZE, count=count), "synthetic images"
    with zipfile.ZipFile(archive_path) as archive:
        names = sorted(name for name in archive.namelist() if "/query/" in name and name.endswith(".jpg"))
        chosen = [names[index] for index in np.linspace(0, len(names) - 1, count).astype(int)]
        found = ImageList([Image.open(io.BytesIO(archive.read(name))) for name in chosen], SIZE, threads=1)
        return torch.from_numpy(np.stack([found.decode(n) for n in range(len(found))])), "query images of Market-1501"


if __name__ == "__main__":
    raise SystemExit(run_command(main))
