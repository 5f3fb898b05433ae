"""The synthetic dataset, generated on first use and read like a real one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reid.data.datasets import dukemtmcreid, market1501
from reid.data.datasets.layout import PartCounts, check_counts, locate, read_folder
from reid.data.synthetic import generate_dataset
from reid.data.synthetic.dataset import METADATA_FILE
from reid.data.synthetic.seeding import VERSION
from reid.errors import InputError
from reid.io.atomic import is_whole
from reid.io.reading import NotRegularFile, read_file
from reid.records import Split

_LAYOUTS = {"market": market1501.LAYOUT, "duke": dukemtmcreid.LAYOUT}


def read_synthetic(
    root: Path, *, strict: bool = True, cache: Path, size: str, layout: str = "market", seed: int = 0
) -> Split:
    """Generate the synthetic dataset into `cache`, if it is not there yet, and read it with the reader of the layout.

    A dataset that a different version of the generator left in the cache is generated again, and so is one of which
    files are missing or have other sizes.

    Args:
        root: Unused, as nothing has to be supplied.
        strict: Whether the counts must be those of the generated dataset.
        cache: Folder that the dataset is generated in.
        size: "tiny", "demo" or "market".
        layout: "market" or "duke".
        seed: Seed of the generator, 0 or more.

    Returns:
        Split of the generated images.

    Raises:
        InputError: If an option is invalid or the counts differ.
    """
    del root
    if layout not in _LAYOUTS:
        raise InputError(f"unknown layout {layout!r} of the synthetic dataset; it must be one of {', '.join(_LAYOUTS)}")
    name = f"synthetic-{layout}-{size}-seed{seed}"
    folder = cache / name
    metadata = folder / METADATA_FILE
    if folder.is_dir() and not _is_usable(folder):
        shutil.rmtree(folder)
    if not folder.is_dir():
        generate_dataset(folder, size=size, layout=layout, seed=seed)
    split = read_folder(_LAYOUTS[layout], locate(_LAYOUTS[layout], folder, cache=cache), name=name)
    if strict:
        counts = {
            part: PartCounts(**{key: part_counts[key] for key in PartCounts.__dataclass_fields__})
            for part, part_counts in _read_metadata(metadata)["counts"].items()
        }
        check_counts(split, counts, "the generated dataset", f"delete {folder} to generate it again")
    return split


def _is_usable(folder: Path) -> bool:
    """Whether this version of the generator drew the dataset, and its files are still those that it drew."""
    metadata = _read_metadata(folder / METADATA_FILE)
    if metadata.get("generator") != VERSION:
        return False
    return "files" not in metadata or is_whole(folder, METADATA_FILE)  # older versions did not store it


def _read_metadata(path: Path) -> dict[str, Any]:
    """Read `synthetic.json`; empty if it is missing or damaged, and the dataset is generated again then."""
    try:
        metadata = json.loads(read_file(path))
    except (FileNotFoundError, NotADirectoryError, NotRegularFile, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
