"""Images per second from 128 x 64 JPEGs to augmented, normalized 256 x 128 tensors, on one thread.

    python benchmarks/input.py [--torchreid CLONE] [--images FOLDER] [--count 2000] [--rounds 5] [--steps] [--gpu]

Measures reading from the decoded cache and decoding each image, with flip, pad-crop and random erasing. Each round is
an epoch of the training loader. `--torchreid` is a clone of torchreid, whose transforms of the same names are measured
in a torch DataLoader with two workers, alternating with ours; only its transforms.py is imported. The ratio is the
median over rounds of its time divided by ours in the same round. `--images` is a folder of JPEGs; without it, images
are generated.

Ours is restricted to one processor, including its threads, if the system supports that; torchreid's two workers and the
process that collects their batches may use all of them. `--steps` also measures each step of ours. `--gpu` keeps the
decoded images on the GPU and augments there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measuring import benchmark_parser, in_rounds, limit_threads, median_ratio, show

limit_threads(1)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from reid.data.augmentation import random_numbers  # noqa: E402
from reid.data.augmentation.augment import Augmentation, erase, erasing_boxes, flip_and_crop  # noqa: E402
from reid.data.augmentation.jitter import Jitter, jitter_colors  # noqa: E402
from reid.data.augmentation.policy import POLICIES, apply_policy  # noqa: E402
from reid.data.images.cache import decode_images  # noqa: E402
from reid.data.images.decode import decode_image  # noqa: E402
from reid.data.images.normalization import normalize  # noqa: E402
from reid.data.images.pixels import DecodedImages, ImageFiles, Images, move_to_device  # noqa: E402
from reid.data.loading.loaders import TrainLoader  # noqa: E402
from reid.data.synthetic.layout import plan_images  # noqa: E402
from reid.data.synthetic.rendering import Renderer  # noqa: E402
from reid.errors import InputError  # noqa: E402
from reid.errors.command import run_command  # noqa: E402
from reid.records import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402

SIZE, BATCH = (256, 128), 64
TRANSFORMS = ("torchreid/data/transforms.py", "torchreid/reid/data/transforms.py")


def main() -> None:
    parser = benchmark_parser(__doc__, count=2000, rounds=5)
    parser.add_argument("--torchreid", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(arguments.images, arguments.count, Path(folder))
        decoded = decode_images(files, size=SIZE, cache=Path(folder))
        epochs: dict[str, Callable[[], object]] = {
            "from the cache": _epoch(loader(decoded)),
            "decoding": _epoch(loader(ImageFiles(files, SIZE))),
        }
        if arguments.gpu:
            device = torch.device("cuda")
            epochs["on the GPU"] = _epoch(loader(move_to_device(DecodedImages(decoded), device, "on"), device))
        if arguments.torchreid:
            epochs["torchreid, 2 workers"] = baseline(arguments.torchreid, files)
        for warm_up in epochs.values():
            warm_up()
        images = len(files) // BATCH * BATCH
        about = f"{images} images of {SIZE[0]} x {SIZE[1]} per epoch, batch {BATCH}, {arguments.rounds} rounds"
        show(rates(in_rounds(epochs, arguments.rounds), images), "input", about, arguments.save)
        if arguments.steps:
            show(steps(files[:BATCH], decoded[:BATCH]), "input_steps", "one thread", arguments.save)


def jpegs(source: Path | None, count: int, folder: Path) -> list[str]:
    """Return `count` JPEGs of a folder or generate them. Raises InputError if they do not fill a batch."""
    if source is not None:
        files = sorted(map(str, source.rglob("*.jpg")))[:count]
    else:
        renderer, files = Renderer(0), []
        for number, spec in enumerate(plan_images("demo", "market", 0)[:count]):
            files.append(str(folder / f"{number:06d}.jpg"))
            Path(files[-1]).write_bytes(renderer.jpeg(spec))
    if len(files) < BATCH:
        raise InputError(f"{len(files)} JPEGs do not fill a batch of {BATCH}: raise --count or pass more --images")
    return files


def loader(images: Images, device: torch.device | str = "cpu") -> TrainLoader:
    """Create a loader with the augmentation that both are measured with."""
    labels = np.arange(len(images), dtype=np.int64)
    return TrainLoader(
        images, labels, BATCH, Augmentation(IMAGENET_MEAN, IMAGENET_STD, flip=0.5, pad=10, erasing=0.5), device
    )


def _epoch(ours: TrainLoader) -> Callable[[], None]:
    def run() -> None:
        with one_processor():
            for _ in ours.epoch(0):
                pass
            if torch.device(ours.device).type == "cuda":
                torch.cuda.synchronize()

    return run


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Restrict this thread and those it starts to one processor, on Linux only."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """Images read like in torchreid: opened, converted and transformed one by one."""

    def __init__(self, files: list[str], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[number]).convert("RGB"))


def baseline(clone: Path, files: list[str]) -> Callable[[], None]:
    """Return an epoch of torchreid's transforms in a DataLoader with two persistent workers."""
    path = next((clone / name for name in TRANSFORMS if (clone / name).is_file()), None)
    if path is None:
        raise InputError(f"{clone}: not a clone of torchreid, which contains {' or '.join(TRANSFORMS)}")
    spec = importlib.util.spec_from_file_location("torchreid_transforms", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()):
        transform, _ = module.build_transforms(
            *SIZE, ["random_flip", "random_crop", "random_erase"], IMAGENET_MEAN, IMAGENET_STD
        )
    batches = torch.utils.data.DataLoader(
        Files(files, transform), BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )

    def run() -> None:
        for _ in batches:
            pass

    return run


def rates(seconds: dict[str, list[float]], images: int) -> Iterator[dict[str, str]]:
    """Images per second, and ratios."""
    theirs = seconds.get("torchreid, 2 workers")
    for name, taken in seconds.items():
        yield {
            "input": name,
            "images/s, median": f"{images / statistics.median(taken):.0f}",
            "best": f"{images / min(taken):.0f}",
            "/ torchreid": f"{median_ratio(theirs, taken):.1f}" if theirs else "–",
        }


def steps(files: list[str], decoded: np.ndarray) -> Iterator[dict[str, str]]:
    """Measure the microseconds per image of each step, one batch at a time."""
    batch = torch.from_numpy(np.array(decoded))
    table = random_numbers.random_table(0, range(BATCH), [0] * BATCH)
    corners = (table[:, random_numbers.CROP] * 21).astype(np.int64)
    values, rectangles = normalize(batch, IMAGENET_MEAN, IMAGENET_STD), erasing_boxes(table, SIZE, 0.5)
    parts: dict[str, Callable[[], object]] = {
        "opening and decoding": lambda: [decode_image(file, (128, 64)) for file in files],
        "the same, and resizing to 256 x 128": lambda: [decode_image(file, SIZE) for file in files],
        "reading from the cache": lambda: decoded[np.arange(BATCH)],
        "generating random numbers": lambda: random_numbers.random_table(0, range(BATCH), [0] * BATCH),
        "flip and pad-crop": lambda: flip_and_crop(batch, table[:, random_numbers.FLIP] < 0.5, corners, 10),
        "normalizing": lambda: normalize(batch, IMAGENET_MEAN, IMAGENET_STD),
        "choosing rectangles to erase": lambda: erasing_boxes(table, SIZE, 0.5),
        "erasing": lambda: erase(values, rectangles),
        "color jitter without hue": lambda: jitter_colors(batch, Jitter(0.2, 0.2, 0.2), table),
        "color jitter with hue": lambda: jitter_colors(batch, Jitter(0.2, 0.2, 0.2, 0.1), table),
        **{name: lambda name=name: apply_policy(batch, name, table[:, random_numbers.POLICY]) for name in POLICIES},  # type: ignore[misc]
    }
    with one_processor():
        measured = in_rounds(parts, 6)
    for name, taken in measured.items():
        yield {"step": name, "microseconds per image": f"{min(taken) / BATCH * 1e6:.1f}"}


if __name__ == "__main__":
    raise SystemExit(run_command(main))
