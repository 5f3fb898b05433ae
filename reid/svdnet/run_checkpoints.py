"""The newest checkpoints of an RRI run and its control in their folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.checkpoint import load_latest
from reid.training.checkpoint_schema import check_training_content
from reid.training.run_folder import RunFolder


def last_path(folder: RunFolder, run: str) -> Path:
    """Name the newest checkpoint of a run.

    Args:
        folder: The run folder.
        run: "rri" or "control".

    Returns:
        The path.
    """
    return folder.checkpoints / f"{run}_last.pth"


def previous_path(folder: RunFolder, run: str) -> Path:
    """Name the checkpoint before the newest one of a run.

    Args:
        folder: The run folder.
        run: "rri" or "control".

    Returns:
        The path.
    """
    return folder.checkpoints / f"{run}_previous.pth"


def find_checkpoints(folder: RunFolder, warn: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Load the newest readable checkpoint of each run.

    Args:
        folder: The run folder.
        warn: Called with one line about each checkpoint that cannot be used.

    Returns:
        The checkpoints by run, "rri" and "control"; only those that exist.

    Raises:
        InputError: If those of the RRI run are unreadable or belong to a different run.
    """
    warnings: list[str] = []
    found = {}
    for run in ("rri", "control"):
        last, previous = last_path(folder, run), previous_path(folder, run)
        if warnings and run == "control":
            # The control started from what the unreadable checkpoint held, and starts again.
            for path in (last, previous):
                path.unlink(missing_ok=True)
        try:
            content = load_latest(last, previous, warnings.append)
            if content is not None:
                check_training_content(content, run=run, source=str(last))
        except InputError as error:
            if run == "rri":
                raise
            warnings.append(f"{error}; starting the control again")
            last.unlink(missing_ok=True)
            content = None
        if content is not None:
            found[run] = content
    if "control" in found and "rri" not in found:
        raise InputError(f"{last_path(folder, 'rri')} is missing; restore it, or choose another OUTPUT_DIR")
    for message in warnings:
        warn(message)
    return found
