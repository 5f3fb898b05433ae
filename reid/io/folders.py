"""Folders that are there whole or not at all, and the room they need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid.errors import InputError

_SPACE_MARGIN = 64 * 2**20


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise `InputError` when `folder` cannot take `needed` more bytes; `purpose` says what they are for."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SPACE_MARGIN:
        raise InputError(
            f"{purpose} needs {needed / 2**20:,.0f} MiB in {folder}, which has {free / 2**20:,.0f} MiB free; "
            "free some space or choose another cache folder"
        )


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A fresh folder to fill, which becomes `destination` when the block ends well and vanishes when it does not.

    A reader thus sees the whole folder or none. Where another process was faster, its folder stays and this one goes.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
    try:
        partial.chmod(0o755)
        yield partial
        try:
            partial.rename(destination)
        except OSError:
            if not destination.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
