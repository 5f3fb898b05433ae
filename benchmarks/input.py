"""Images a second from 128 x 64 JPEGs to augmented, normalized 256 x 128 tensors, on one thread.

    python benchmarks/input.py [--torchreid CLONE] [--images FOLDER] [--count 2000] [--rounds 5] [--steps] [--gpu]

Measured from the decoded cache and decoding each image, with flip, pad-crop and random erasing; every turn is an epoch
of the training loader. `--torchreid` points at a clone of torchreid, whose transforms of the same names are measured in
a torch DataLoader of two workers, in turns with ours; only its transforms.py is loaded. A ratio is the median over
turns of its seconds for one of ours in the same turn. `--images` takes JPEGs from a folder instead of drawing some.

Ours is held to one processor where the system can do that, its threads included; torchreid's two workers and the
process that collects their batches have all of them. `--steps` says where the time of ours goes. `--gpu` keeps the
decoded set on the GPU and augments there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measuring import in_rounds, limit_threads, median_ratio

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
from reid.errors import InputError, run_command  # noqa: E402
from reid.records import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402

SIZE, BATCH = (256, 128), 64
TRANSFORMS = ("torchreid/data/transforms.py", "torchreid/reid/data/transforms.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchreid", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
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
            epochs["torchreid, 2 workers"] = rival(arguments.torchreid, files)
        for warm_up in epochs.values():
            warm_up()
        report(in_rounds(epochs, arguments.rounds), len(files) // BATCH * BATCH)
        if arguments.steps:
            steps(files[:BATCH], decoded[:BATCH])


def jpegs(given: Path | None, count: int, folder: Path) -> list[str]:
    """`count` JPEGs out of a folder, or drawn into one. Raises InputError where there are too few for a batch."""
    if given is not None:
        files = sorted(map(str, given.rglob("*.jpg")))[:count]
    else:
        renderer, files = Renderer(0), []
        for number, spec in enumerate(plan_images("demo", "market", 0)[:count]):
            files.append(str(folder / f"{number:06d}.jpg"))
            Path(files[-1]).write_bytes(renderer.jpeg(spec))
    if len(files) < BATCH:
        raise InputError(f"{len(files)} JPEGs are less than a batch of {BATCH}: raise --count, or give more --images")
    return files


def loader(images: Images, device: torch.device | str = "cpu") -> TrainLoader:
    """The recipe that both are measured with."""
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
    """This thread, and those it starts, on one processor; elsewhere than on Linux nothing happens."""
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
    """Images as torchreid reads them: opened, converted and transformed one by one."""

    def __init__(self, files: list[str], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[number]).convert("RGB"))


def rival(clone: Path, files: list[str]) -> Callable[[], None]:
    """An epoch of torchreid's transforms in a DataLoader of two workers that stay from one epoch to the next."""
    path = next((clone / name for name in TRANSFORMS if (clone / name).is_file()), None)
    if path is None:
        raise InputError(f"{clone}: no clone of torchreid, which has {' or '.join(TRANSFORMS)}")
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


def report(seconds: dict[str, list[float]], images: int) -> None:
    """A table of images a second and ratios."""
    theirs = seconds.get("torchreid, 2 workers")
    print(
        f"{images} images of {SIZE[0]} x {SIZE[1]} an epoch, batch {BATCH}, {len(next(iter(seconds.values())))} turns\n"
    )
    print("| input | images/s, median | best | times torchreid |\n|---|---|---|---|")
    for name, taken in seconds.items():
        ratio = f"{median_ratio(theirs, taken):.1f}" if theirs else "–"
        print(f"| {name} | {images / statistics.median(taken):.0f} | {images / min(taken):.0f} | {ratio} |")


def steps(files: list[str], decoded: np.ndarray) -> None:
    """Microseconds an image of every step, one batch at a time."""
    batch = torch.from_numpy(np.array(decoded))
    table = random_numbers.random_table(0, range(BATCH), [0] * BATCH)
    corners = (table[:, random_numbers.CROP] * 21).astype(np.int64)
    values, rectangles = normalize(batch, IMAGENET_MEAN, IMAGENET_STD), erasing_boxes(table, SIZE, 0.5)
    parts: dict[str, Callable[[], object]] = {
        "opening and decoding": lambda: [decode_image(file, (128, 64)) for file in files],
        "the same, and resizing to 256 x 128": lambda: [decode_image(file, SIZE) for file in files],
        "picking from the cache": lambda: decoded[np.arange(BATCH)],
        "drawing the random numbers": lambda: random_numbers.random_table(0, range(BATCH), [0] * BATCH),
        "flip and pad-crop": lambda: flip_and_crop(batch, table[:, random_numbers.FLIP] < 0.5, corners, 10),
        "normalising": lambda: normalize(batch, IMAGENET_MEAN, IMAGENET_STD),
        "choosing what is erased": lambda: erasing_boxes(table, SIZE, 0.5),
        "erasing": lambda: erase(values, rectangles),
        "color jitter without hue": lambda: jitter_colors(batch, Jitter(0.2, 0.2, 0.2), table),
        "color jitter with hue": lambda: jitter_colors(batch, Jitter(0.2, 0.2, 0.2, 0.1), table),
        **{name: lambda name=name: apply_policy(batch, name, table[:, random_numbers.POLICY]) for name in POLICIES},  # type: ignore[misc]
    }
    print("\n| step | microseconds an image |\n|---|---|")
    with one_processor():
        for name, taken in in_rounds(parts, 6).items():
            print(f"| {name} | {min(taken) / BATCH * 1e6:.1f} |")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
