"""The record of a run's images, by which a resumed run notices that its dataset has changed.

It is `data.json` in the run folder: of every image its place in the lists, its path below the dataset's folder, its
identity and camera, and the CRC-32 of its file. So all files are read once at the start of a run, in parallel.
"""

from __future__ import annotations

import json
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.json_yaml import parse_json
from reid.records import ImageRecord, Split
from reid.threads import thread_count

NAME = "data.json"
PARTS = ("train", "query", "gallery")

Row = list[Any]  # path, identity, camera, CRC-32 of the file


def record_data(split: Split) -> dict[str, list[Row]]:
    """List the images of a dataset.

    Args:
        split: The dataset, whose files exist.

    Returns:
        For "train", "query" and "gallery" a list of [path, identity, camera, CRC-32 of the file] in the order of the
        dataset. Paths are relative to the deepest folder that holds all images of the list, or all that come from one
        of several datasets, so that a dataset may move.
    """
    return {part: list(_rows(getattr(split, part), split.sources if part == "train" else ())) for part in PARTS}


def _rows(images: Sequence[ImageRecord], sources: Sequence[tuple[str, int]]) -> Iterator[Row]:
    starts = sorted((identity, name) for name, identity in sources)
    firsts = [identity for identity, _ in starts]
    numbers = [max(0, bisect_right(firsts, image.identity) - 1) for image in images]
    paths = [os.path.abspath(image.path) for image in images]
    folders: dict[int, set[str]] = {}
    for number, path in zip(numbers, paths, strict=True):
        folders.setdefault(number, set()).add(os.path.dirname(path))
    roots = {number: os.path.commonpath(found) for number, found in folders.items()}
    with ThreadPoolExecutor(thread_count()) as pool:
        checksums = list(pool.map(_checksum, paths))
    for number, path, image, checksum in zip(numbers, paths, images, checksums, strict=True):
        below = Path(path[len(roots[number]) :].lstrip(os.sep)).as_posix()
        source = f"{starts[number][1]}: " if starts else ""
        yield [f"{source}{below}", image.identity, image.camera, checksum]


def _checksum(path: str) -> int:
    with open(path, "rb") as file:
        return zlib.crc32(file.read())


def to_text(record: Mapping[str, Sequence[Row]]) -> str:
    """Format a record as JSON, one image per line.

    Args:
        record: As `record_data` returned it.

    Returns:
        The content of `data.json`.
    """
    parts = (f'"{part}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for part, rows in record.items())
    return "{" + ",\n".join(parts) + "}\n"


def read_record(path: Path) -> dict[str, list[Row]]:
    """Read a record.

    Args:
        path: `data.json` of a run folder.

    Returns:
        As `record_data` does.

    Raises:
        InputError: If the file is damaged.
    """
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        record, reason = None, f" ({error})"
    else:
        reason = ""
    if not isinstance(record, dict) or set(record) != set(PARTS) or not all(map(_is_rows, record.values())):
        raise InputError(
            f"{path}: not a list of images{reason}; restore it, or add --force to accept the present images"
        )
    return record


def _is_rows(rows: Any) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, list) and [type(value) for value in row] == [str, int, int, int] for row in rows
    )


def data_changes(was: Mapping[str, Sequence[Row]], now: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    """Compare two records.

    Args:
        was: The earlier one.
        now: The present one.

    Returns:
        One line per kind of difference and list, with the number of images and the first of them.
    """
    return tuple(line for part in PARTS if was[part] != now[part] for line in _differences(part, was[part], now[part]))


def _differences(part: str, was: Sequence[Row], now: Sequence[Row]) -> Iterator[str]:
    old, new = ({row[0]: row for row in rows} for rows in (was, now))
    both = [path for path in new if path in old]
    groups: dict[str, list[str]] = {
        "new": [path for path in new if path not in old],
        "missing": [path for path in old if path not in new],
        "of another identity": [path for path in both if old[path][1] != new[path][1]],
        "of another camera": [path for path in both if old[path][2] != new[path][2]],
        "of other content": [path for path in both if old[path][3] != new[path][3]],
    }
    for kind, paths in groups.items():
        if paths:
            yield f"{len(paths)} of {len(now)} images of '{part}' are {kind}, the first: {paths[0]}"
    if not any(groups.values()):
        yield f"the images of '{part}' come in another order"
