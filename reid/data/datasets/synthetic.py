"""The dataset the project draws itself, drawn on first use and read as if it were a real one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reid.data.datasets import dukemtmcreid, market1501
from reid.data.datasets.layout import PartCounts, check_counts, locate, read_folder
from reid.data.synthetic import generate_dataset
from reid.data.synthetic.rendering import VERSION
from reid.errors import InputError
from reid.records import Split

_LAYOUTS = {"market": market1501.LAYOUT, "duke": dukemtmcreid.LAYOUT}


def read_synthetic(
    root: Path, *, strict: bool = True, cache: Path, size: str, layout: str = "market", seed: int = 0
) -> Split:
    """Draw the synthetic dataset into `cache`, where it is not there yet, and read it with the layout's reader.

    root: ignored, as nothing has to be supplied. strict: what is read must have the counts that were drawn.
    size: `tiny`, `demo` or `market`; layout: `market` or `duke`. A dataset that an older version of the drawing left in
    the cache is drawn anew. Raises `InputError`.
    """
    del root
    if layout not in _LAYOUTS:
        raise InputError(f"unknown layout {layout!r} of the synthetic dataset; there are {', '.join(_LAYOUTS)}")
    name = f"synthetic-{layout}-{size}-seed{seed}"
    folder = cache / name
    note = folder / "synthetic.json"
    if folder.is_dir() and _note(note).get("generator") != VERSION:
        shutil.rmtree(folder)
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        generate_dataset(folder, size=size, layout=layout, seed=seed)
    split = read_folder(_LAYOUTS[layout], locate(_LAYOUTS[layout], folder, cache=cache), name=name)
    if strict:
        counts = {
            part: PartCounts(**{key: part_counts[key] for key in PartCounts.__dataclass_fields__})
            for part, part_counts in _note(note)["counts"].items()
        }
        check_counts(split, counts, "what was drawn", f"delete {folder} and it is drawn anew")
    return split


def _note(path: Path) -> dict[str, Any]:
    """What `synthetic.json` says; empty where it is missing or damaged, so that the dataset is drawn anew."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
