"""PNG files chunk by chunk, also such as no program writes."""

from __future__ import annotations

import struct
import zlib


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes = b"", *, interlaced: bool = False, around: bytes = b"") -> bytes:
    """An RGB image that claims a size, whatever its compressed rows hold; chunks `around` them are repeated."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    middle = around + chunk(b"IDAT", rows) + around
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IEND", b"")
