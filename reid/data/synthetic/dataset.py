"""Generation of a whole dataset into a folder: completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL

from reid.data.synthetic.layout import FOLDERS, PARTS, ImageSpec, plan_images
from reid.data.synthetic.rendering import Renderer
from reid.data.synthetic.seeding import VERSION
from reid.errors import InputError
from reid.io.atomic import atomic_folder, is_whole
from reid.progress import track
from reid.records import DISTRACTOR, JUNK

METADATA_FILE = "synthetic.json"


def generate_dataset(output: Path, *, size: str, layout: str = "market", seed: int = 0, progress: bool = True) -> Path:
    """Generate a dataset of pedestrians.

    The images appear in `output` all at once after the last is rendered; an interrupted run leaves nothing, and what a
    killed one leaves is removed by the next. The same
    arguments and the same version of Pillow give the same bytes.

    Args:
        output: A folder that does not exist, is empty, or contains the same dataset already (then nothing is done). It
            gets `Market-1501-v15.09.15/` or `DukeMTMC-reID/` with `bounding_box_train`, `bounding_box_test` and
            `query`, and `synthetic.json` next to it.
        size: "tiny", "demo" or "market".
        layout: "market" or "duke".
        seed: Seed of the generator, 0 or more.
        progress: Whether to show a progress bar.

    Returns:
        `output`.

    Raises:
        InputError: If the size or layout is unknown, the seed is negative, or `output` contains something else.
    """
    if seed < 0:
        raise InputError(f"the seed of the synthetic dataset is {seed}; it must be 0 or more")
    specs = plan_images(size, layout, seed)
    metadata: dict[str, Any] = {
        "size": size,
        "layout": layout,
        "seed": seed,
        "generator": VERSION,
        "pillow": PIL.__version__,
        "counts": count_images(specs),
    }
    images = {f"{FOLDERS[layout]}/{PARTS[part]}": counts["images"] for part, counts in metadata["counts"].items()}
    return write_dataset(
        output, metadata, images, lambda folder: _write(folder, specs, Renderer(seed), FOLDERS[layout], progress)
    )


def write_dataset(
    output: Path, metadata: dict[str, Any], images: dict[str, int], write: Callable[[Path], None]
) -> Path:
    """Write a dataset, which appears in `output` all at once; nothing is done if it is there already.

    Args:
        output: Same as for `generate_dataset`.
        metadata: Description of the dataset, stored in `synthetic.json`.
        images: Number of images in each folder of the dataset.
        write: Writes the images into the folder it is called with.

    Returns:
        `output`.

    Raises:
        InputError: If `output` contains something else.
    """
    output = Path(output)
    if _is_complete(output, metadata, images):
        return output
    with atomic_folder(output, METADATA_FILE, metadata) as partial:
        write(partial)
    if not _is_complete(output, metadata, images):  # another process has put something else there meanwhile
        raise InputError(f"{output} is empty or was removed while the dataset was generated; start again")
    return output


def count_images(specs: list[ImageSpec]) -> dict[str, dict[str, int]]:
    """Count the images of each part, as stored in `synthetic.json`.

    Args:
        specs: All images of the dataset.

    Returns:
        For "train", "query" and "gallery": "images"; "identities", without -1 and 0; "cameras"; "junk" and
        "distractors", the images labeled -1 and 0; "lone", the images of identities without a query, as only one
        camera sees them (layout duke).
    """
    queried = {spec.identity for spec in specs if spec.part == PARTS["query"]}
    counts: dict[str, dict[str, int]] = {}
    for part, folder in PARTS.items():
        here = [spec for spec in specs if spec.part == folder]
        counts[part] = {
            "images": len(here),
            "identities": len({spec.identity for spec in here if spec.identity > 0}),
            "cameras": len({spec.camera for spec in here}),
            "junk": sum(spec.identity == JUNK for spec in here),
            "distractors": sum(spec.identity == DISTRACTOR for spec in here),
            "lone": sum(spec.identity > 0 and spec.identity not in queried for spec in here)
            if part == "gallery"
            else 0,
        }
    return counts


def _write(folder: Path, specs: list[ImageSpec], renderer: Renderer, name: str, progress: bool) -> None:
    for part in PARTS.values():
        (folder / name / part).mkdir(parents=True)
    for spec in track(specs, "generating", unit="images", shown=progress):
        (folder / name / spec.part / spec.name).write_bytes(renderer.jpeg(spec))


def _is_complete(output: Path, metadata: dict[str, Any], images: dict[str, int]) -> bool:
    if not output.exists():
        return False
    if not output.is_dir():
        raise InputError(f"{output} is a file; the synthetic dataset needs a folder")
    if not any(output.iterdir()):
        return False
    remedy = "remove the folder or choose another"
    try:
        stored = json.loads((output / METADATA_FILE).read_text(encoding="utf-8"))
        differences = [
            f"{key} {stored[key]!r} instead of {metadata[key]!r}" for key in metadata if stored[key] != metadata[key]
        ]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{output} contains something other than a synthetic dataset; {remedy}") from None
    if differences:
        raise InputError(f"{output} contains a different synthetic dataset ({'; '.join(differences)}); {remedy}")
    for part, count in images.items():
        found = sum(1 for path in (output / part).glob("*.jpg") if path.stat().st_size)
        if found != count:
            raise InputError(f"{output}: {Path(part).name} contains {found} images instead of {count}; {remedy}")
    if "files" in stored and not is_whole(output, METADATA_FILE):  # older versions did not store it
        raise InputError(f"{output}: files have been added, removed or changed since they were generated; {remedy}")
    return True
