"""Write an exported file together with its model card."""

from __future__ import annotations

from pathlib import Path

from reid.errors import InputError
from reid.io.atomic import write_bytes


def write_export(path: Path, data: bytes, card: str, *, force: bool) -> Path:
    """Write the exported file and its card; if either cannot be written, what is new is removed again.

    Args:
        path: The exported file; parent folders are created.
        data: Content of the exported file.
        card: Text of the model card.
        force: Replace existing files.

    Returns:
        Path of the card, next to the exported file.

    Raises:
        InputError: If one of the files exists and `force` is False.
    """
    card_file = card_path(path)
    check_output_path(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = [file for file in (path, card_file) if not file.exists()]
    try:
        write_bytes(path, data)
        write_bytes(card_file, card.encode("utf-8", "replace"))
    except BaseException:
        for file in new:
            file.unlink(missing_ok=True)
        raise
    return card_file


def card_path(path: Path) -> Path:
    """Get the path of the model card of an exported file.

    Args:
        path: Path of the exported file, which need not exist.

    Returns:
        `path` with ".md" appended.
    """
    return path.with_name(f"{path.name}.md")


def check_output_path(path: Path, *, force: bool) -> None:
    """Check that an exported file and its card can be written without replacing other files.

    Args:
        path: Path at which the file will be exported.
        force: Allow existing files.

    Raises:
        InputError: If the file or its card exists and `force` is False, or is a folder.
    """
    for file in (path, card_path(path)):
        if file.is_dir():
            raise InputError(f"{file} is a folder: name the file to write, such as {file / 'model.onnx'}")
        if file.exists() and not force:
            raise InputError(f"{file} already exists; give another --output, or --force to replace it")
