"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` beside `path`, flush it to the disk and rename it: `path` holds the old content or the new.

    Raises OSError (a full disk, say) with nothing half-written left behind.
    """
    beside = path.with_name(f".{path.name}.writing")
    try:
        # New, never what somebody laid there: a link would have another file overwritten.
        beside.unlink(missing_ok=True)
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        flush_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Have the disk hold the names in a folder as they are now, so that a renaming outlasts a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # of Windows, which opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    write_whole(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file or nothing."""
    write_text(path, json.dumps(content, indent=1) + "\n")
