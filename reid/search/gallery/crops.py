"""The crops of a folder tree and the labels in their names: identity, camera and time."""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from reid.data.datasets.pattern import PathPattern, compile_pattern
from reid.errors import InputError
from reid.io.image_files import IMAGE_SUFFIXES, walk_images, warn_of_skipped

# File names of datasets, in the syntax of `reid.data.datasets.pattern`.
PATTERNS = {
    "market1501": "**/{identity}_c{camera:1}s*_{time}_*",
    "dukemtmcreid": "**/{identity}_c{camera}_f{time}",
    "cuhk03np": "**/{identity}_c{camera}_*",
    "msmt17": "**/*_*_{camera}_*",
}
FIELDS = ("identity", "camera", "time")

# What a path names is gone. Other errors say nothing about the file, and images may not be dropped because of them.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_TOO_DEEP = errno.ENAMETOOLONG  # no image below can have been indexed
_MAX_INTEGER = 2**63 - 1  # of SQLite
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")  # stricter than `float`, which accepts underscores between digits
_DAY = 86_400.0  # seconds


# Named tuples: opening an index creates one of each per image, and dataclasses are several times slower to create.
class Labels(NamedTuple):
    """Labels parsed from a file name, as strings without leading zeros; "" if unknown.

    Attributes:
        identity: Identity of the person.
        camera: Camera as the file name calls it, such as "3".
        time: A number or an ISO 8601 date, see `parse_time`.
    """

    identity: str = ""
    camera: str = ""
    time: str = ""


class Crop(NamedTuple):
    """An image file.

    Attributes:
        path: Path relative to the folder, with `/` as separator.
        size: Size in bytes.
        mtime_ns: Modification time in nanoseconds.
        labels: Labels parsed from the name.
    """

    path: str
    size: int
    mtime_ns: int
    labels: Labels


@dataclass(frozen=True)
class CropListing:
    """The image files in a folder and its subfolders.

    Attributes:
        folder: Folder that was listed; paths are relative to it.
        crops: The images, in the order of `walk_images`.
        unmatched: Paths that do not match the pattern. They are part of `crops`, without labels.
        undecodable: Paths that are not valid UTF-8 and therefore cannot be stored.
        too_deep: Folders whose paths are longer than the system allows, which are not entered.
    """

    folder: Path
    crops: tuple[Crop, ...]
    unmatched: tuple[str, ...] = ()
    undecodable: tuple[str, ...] = ()
    too_deep: tuple[str, ...] = ()


def list_crops(folder: Path, pattern: str = "") -> CropListing:
    """List all image files in a folder and its subfolders without opening them.

    Args:
        folder: Folder to list; paths are relative to it.
        pattern: A key of `PATTERNS`, or a pattern with any of {identity}, {camera} and {time}; "" for no labels. A crop
            that does not match, or whose time cannot be parsed, has no labels.

    Returns:
        The crops and the paths that need attention.

    Raises:
        InputError: If the folder is missing or holds no image, or the pattern is invalid.
        OSError: If the system cannot list a folder or look up a file that exists.
    """
    check_crops(folder, pattern)
    expression = _compile(pattern)
    crops, unmatched, undecodable, too_deep = [], [], [], list[str]()
    skipped = list[str]()

    def skip(error: OSError) -> None:
        if error.errno == _TOO_DEEP:
            too_deep.append(os.path.relpath(error.filename, folder))
        elif error.errno not in GONE or error.filename == str(folder):
            raise error

    for path in walk_images(folder, skip, skipped):
        try:
            path.encode()
            status = os.stat(folder / path)
        except UnicodeEncodeError:
            undecodable.append(path)
            continue
        except OSError as error:
            if error.errno != _TOO_DEEP:
                skip(error)
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        labels = _parse_labels(path, expression) if expression else Labels()
        if labels is None:
            unmatched.append(path)
        crops.append(Crop(path, *size_and_time(status), labels or Labels()))
    warn_of_skipped(folder, skipped)
    if not crops:
        raise _no_image(folder)
    return CropListing(folder, tuple(crops), tuple(unmatched), tuple(undecodable), tuple(too_deep))


def check_crops(folder: Path, pattern: str = "") -> None:
    """Check that a folder can be listed, without listing all of it.

    Args:
        folder: Folder to check.
        pattern: Pattern for the names, see `list_crops`.

    Raises:
        InputError: If the folder is missing or holds no image, or the pattern is invalid.
        OSError: If the system cannot list it.
    """
    _compile(pattern)
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'} of crops")
    errors: list[OSError] = []
    if next(walk_images(folder, errors.append), None) is None:
        raise next((error for error in errors if error.errno not in (*GONE, _TOO_DEEP)), _no_image(folder))


def size_and_time(status: os.stat_result) -> tuple[int, int]:
    """Read what tells whether a file has changed.

    Args:
        status: Status of the file.

    Returns:
        Size in bytes, and modification time in nanoseconds, limited to what SQLite stores (the year 2262).
    """
    return status.st_size, max(-_MAX_INTEGER, min(status.st_mtime_ns, _MAX_INTEGER))


def parse_time(text: str) -> float:
    """Parse a time label.

    Args:
        text: A number (of frames or seconds), or an ISO 8601 date such as 2026-01-31T23:59:59 or 20260131T235959, where
            an underscore may replace the T. Dates without a time zone are in UTC.

    Returns:
        The number itself, or the date in seconds since 1970.

    Raises:
        InputError: If the text is neither.
    """
    value = _parse_time(text)
    if value is None:
        raise InputError(f"invalid time {text!r}; use a number or a date such as 2026-01-31T23:59:59")
    return value


def parse_time_range(start: str, end: str) -> tuple[float, float] | None:
    """Parse the two ends of a time range.

    Args:
        start: First time as in `parse_time`; "" leaves this end open.
        end: Last time, where a date without a time includes that day; "" leaves this end open.

    Returns:
        Both ends, infinite where open; None if both are open.

    Raises:
        InputError: If an end cannot be parsed, may be a number or a date (20260131), or the range ends before it
            starts.
    """
    if not (start or end):
        return None
    for text in (start, end):
        if re.fullmatch(r"(19|20)[0-9]{6}", text) and _parse_date(text) is not None:
            raise InputError(
                f"the time {text} may be a number or a date; write {text[:4]}-{text[4:6]}-{text[6:]} or {text}.0"
            )
    first, last = parse_time(start) if start else -math.inf, parse_time(end) if end else math.inf
    if end and not _NUMBER.fullmatch(end) and len(end) <= len("2026-01-31"):
        last = math.nextafter(last + _DAY, -math.inf)
    if first > last:
        raise InputError(f"the time range from {start} to {end} ends before it starts")
    return first, last


def _compile(pattern: str) -> PathPattern | None:
    return compile_pattern(PATTERNS.get(pattern, pattern), FIELDS, "--pattern") if pattern else None


def _no_image(folder: Path) -> InputError:
    return InputError(f"{folder}: no image ({', '.join(IMAGE_SUFFIXES)}) in this folder or its subfolders")


def _parse_labels(path: str, expression: PathPattern) -> Labels | None:
    fields = expression.fullmatch(path.rpartition(".")[0])
    if fields is None or ("time" in fields and _parse_time(fields["time"]) is None):
        return None
    return Labels(**{name: _strip_zeros(text) for name, text in fields.items()})


def _parse_time(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else _parse_date(text)


def _parse_date(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text.replace("_", "T", 1))
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _strip_zeros(text: str) -> str:
    return (text.lstrip("0") or "0") if text.isdecimal() and text.isascii() else text
