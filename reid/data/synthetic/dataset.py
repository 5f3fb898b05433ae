"""Drawing a whole dataset into a folder: all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL
from tqdm import tqdm

from reid.data.synthetic.layout import FOLDERS, PARTS, ImageSpec, plan_images
from reid.data.synthetic.rendering import Renderer
from reid.data.synthetic.seeding import VERSION
from reid.errors import InputError
from reid.records import DISTRACTOR, JUNK

NOTE = "synthetic.json"


def generate_dataset(output: Path, *, size: str, layout: str = "market", seed: int = 0, progress: bool = True) -> Path:
    """Draw a dataset and return `output`.

    output: a folder that does not exist, is empty, or holds the same dataset already (then nothing is done). It gets
    `Market-1501-v15.09.15/` or `DukeMTMC-reID/` with `bounding_box_train`, `bounding_box_test` and `query`, and
    `synthetic.json` beside it. size: tiny, demo or market; layout: market or duke; seed: 0 or more. The same
    arguments and the same Pillow give the same bytes. The images appear in `output` all at once, when the last is
    drawn; an interrupted drawing leaves nothing.

    Raises `InputError` for an unknown size or layout, a negative seed, or an `output` that holds something else.
    """
    if seed < 0:
        raise InputError(f"the seed of the synthetic dataset is {seed}; it must be 0 or more")
    pictures = plan_images(size, layout, seed)
    note: dict[str, Any] = {
        "size": size,
        "layout": layout,
        "seed": seed,
        "generator": VERSION,
        "pillow": PIL.__version__,
        "counts": count(pictures),
    }
    images = {f"{FOLDERS[layout]}/{PARTS[part]}": counts["images"] for part, counts in note["counts"].items()}
    return fill(
        output, note, images, lambda folder: _write(folder, pictures, Renderer(seed), FOLDERS[layout], progress)
    )


def fill(output: Path, note: dict[str, Any], images: dict[str, int], draw: Callable[[Path], None]) -> Path:
    """Draw a dataset into `output`, all at once when it is whole; where it is there already nothing is done.

    note: what the dataset is, written to `synthetic.json`. images: how many each folder of it holds. draw: writes them
    into a folder. Raises InputError for an `output` that holds something else.
    """
    output = Path(output)
    if _already_there(output, note, images):
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        draw(partial)
        (partial / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        try:
            partial.replace(output)
        except OSError:
            # Somebody else may have drawn the same meanwhile; anything else in the way is told by the check.
            if not _already_there(output, note, images):
                raise
            shutil.rmtree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return output


def count(pictures: list[ImageSpec]) -> dict[str, dict[str, int]]:
    """What `synthetic.json` says of each part: train, query, gallery.

    images; identities, without -1 and 0; cameras; junk and distractors, the images labeled -1 and 0; lone, the images
    of identities that no query asks for because only one camera sees them (layout duke).
    """
    queried = {picture.identity for picture in pictures if picture.part == PARTS["query"]}
    counts: dict[str, dict[str, int]] = {}
    for part, folder in PARTS.items():
        here = [picture for picture in pictures if picture.part == folder]
        counts[part] = {
            "images": len(here),
            "identities": len({picture.identity for picture in here if picture.identity > 0}),
            "cameras": len({picture.camera for picture in here}),
            "junk": sum(picture.identity == JUNK for picture in here),
            "distractors": sum(picture.identity == DISTRACTOR for picture in here),
            "lone": sum(picture.identity > 0 and picture.identity not in queried for picture in here)
            if part == "gallery"
            else 0,
        }
    return counts


def _write(folder: Path, pictures: list[ImageSpec], renderer: Renderer, name: str, progress: bool) -> None:
    for part in PARTS.values():
        (folder / name / part).mkdir(parents=True)
    for picture in tqdm(pictures, desc="drawing", unit="image", disable=not progress):
        (folder / name / picture.part / picture.name).write_bytes(renderer.jpeg(picture))


def _already_there(output: Path, note: dict[str, Any], images: dict[str, int]) -> bool:
    if not output.exists():
        return False
    if not output.is_dir():
        raise InputError(f"{output} is a file; the synthetic dataset needs a folder")
    if not any(output.iterdir()):
        return False
    remedy = "remove the folder or choose another"
    try:
        found = json.loads((output / NOTE).read_text(encoding="utf-8"))
        differences = [f"{key} {found[key]!r} instead of {note[key]!r}" for key in note if found[key] != note[key]]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{output} holds something else than a synthetic dataset; {remedy}") from None
    if differences:
        raise InputError(f"{output} holds another synthetic dataset ({'; '.join(differences)}); {remedy}")
    for part, count in images.items():
        found_images = sum(1 for _ in (output / part).glob("*.jpg"))
        if found_images != count:
            raise InputError(f"{output}: {Path(part).name} holds {found_images} images instead of {count}; {remedy}")
    return True
