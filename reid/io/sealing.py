"""Digests of zip archives, in the comment at their end: replaced with the content and verified before it is parsed.

Every reader of zip archives skips the comment, `torch.load` and `numpy.load` too.
"""

from __future__ import annotations

import io
from pathlib import Path

from reid.errors import InputError
from reid.io.atomic import atomic_file
from reid.io.digest import DIGEST_LENGTH, compute_digest, compute_file_digest

# What a comment that holds a digest begins with.
MARK = b"reid sha256 "


def write_sealed(path: Path, archive: memoryview) -> None:
    """Write a zip archive with its digest atomically.

    Args:
        path: File to create or replace.
        archive: An archive without a comment; the length of the comment is set in place.
    """
    archive[-2:] = (len(MARK) + DIGEST_LENGTH).to_bytes(2, "little")
    digest = compute_digest(archive, MARK)
    with atomic_file(path) as file:
        file.write(archive)
        file.write(MARK + digest.encode())


def check_seal(path: Path) -> bool:
    """Compare a file with the digest at its end, before anything in it is parsed.

    Args:
        path: File, written by `write_sealed` or not.

    Returns:
        Whether there is a digest; older versions and other programs write none.

    Raises:
        InputError: If the file does not match its digest.
    """
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - DIGEST_LENGTH - len(MARK), 0))
        mark, digest = file.read(len(MARK)), file.read()
    if mark != MARK:
        return False
    if compute_file_digest(path, size - DIGEST_LENGTH).encode() != digest:
        raise InputError(f"{path}: corrupt: it does not match its digest")
    return True
