"""The crops of a folder tree, and what their names tell: identity, camera and time."""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from reid.data.datasets.folder import walk_images
from reid.data.datasets.pattern import compile_pattern
from reid.errors import InputError

# The names of datasets' files, in the way of writing of `reid.data.datasets.pattern`.
PATTERNS = {
    "market1501": "**/{identity}_c{camera:1}s*_{time}_*",
    "dukemtmcreid": "**/{identity}_c{camera}_f{time}",
    "cuhk03np": "**/{identity}_c{camera}_*",
    "msmt17": "**/*_*_{camera}_*",
}
FIELDS = ("identity", "camera", "time")


# Tuples: an index makes one of each for every image when it is opened, and a dataclass costs several times as much.
class Labels(NamedTuple):
    """What a name tells, as texts without leading zeros; "" where it is not known."""

    identity: str = ""
    camera: str = ""
    time: str = ""


class Crop(NamedTuple):
    """An image file: its path below the folder, divided by `/`, bytes, time of change in ns, and labels."""

    path: str
    size: int
    changed: int
    labels: Labels


@dataclass(frozen=True)
class Names:
    """The image files in and below a folder.

    unfit: paths that do not fit the pattern, which are among the crops too, without labels. unnameable: paths that are
    not in UTF-8, and so cannot be kept.
    """

    folder: Path
    crops: tuple[Crop, ...]
    unfit: tuple[str, ...] = ()
    unnameable: tuple[str, ...] = ()


def read_names(folder: Path, pattern: str = "") -> Names:
    """All image files in and below a folder, none of them opened.

    pattern: one of `PATTERNS`, or a pattern of one's own with {identity}, {camera} and {time}, each if known; "" for
    none. A crop that does not fit, or whose time is none, has no labels. Raises InputError for a folder that is missing
    or holds no image, and a wrong pattern.
    """
    expression = compile_pattern(PATTERNS.get(pattern, pattern), FIELDS, "--pattern") if pattern else None
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'} of crops")
    crops, unfit, unnameable = [], [], []
    for path in walk_images(folder):
        try:
            path.encode()
            status = os.stat(folder / path)
        except UnicodeEncodeError:
            unnameable.append(path)
            continue
        except OSError:  # removed meanwhile, a link to nowhere or to itself
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        labels = Labels()
        if expression is not None:
            match = expression.fullmatch(path.rpartition(".")[0])
            groups = match.groupdict(default="") if match else {}
            if match is None or ("time" in groups and _moment(groups["time"]) is None):
                unfit.append(path)
            else:
                labels = Labels(**{name: _plain(text) for name, text in groups.items()})
        crops.append(Crop(path, status.st_size, status.st_mtime_ns, labels))
    if not crops:
        raise InputError(f"{folder}: holds no image (.jpg, .jpeg, .png), and none of its folders does")
    return Names(folder, tuple(crops), tuple(unfit), tuple(unnameable))


def parse_time(text: str) -> float:
    """A number as it is (frames, or seconds), or a date as seconds since 1970, UTC where it names no zone.

    Dates are those of ISO 8601, such as 2026-01-31T23:59:59 or 20260131T235959; an underscore may stand for the T.
    Raises InputError for anything else.
    """
    found = _moment(text)
    if found is None:
        raise InputError(f"{text!r} is no time: a number, or a date such as 2026-01-31T23:59:59")
    return found


def parse_period(first: str, last: str) -> tuple[float, float] | None:
    """Two times as `parse_time` reads them, the ends of a period; an empty one is open, and None are two such.

    Raises InputError for what is no time, and for an end before the beginning.
    """
    if not (first or last):
        return None
    begin, end = parse_time(first) if first else -math.inf, parse_time(last) if last else math.inf
    if begin > end:
        raise InputError(f"the time from {first} to {last} ends before it begins")
    return begin, end


def _moment(text: str) -> float | None:
    # Not all that `float` takes: it reads over underscores.
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text):
        return float(text)
    try:
        date = datetime.fromisoformat(text.replace("_", "T", 1))
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _plain(text: str) -> str:
    return (text.lstrip("0") or "0") if text.isdecimal() and text.isascii() else text
