"""Opening of images: the same pixels as Pillow's, in a time in proportion to the size of the file and of the image."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import png_files
import pytest
from PIL import Image, PngImagePlugin
from png_files import chunk

from reid.io.images import CorruptImage, open_image


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg(side: int, scans: int, *, head: bytes = b"", progressive: bool = True) -> bytes:
    """A gray JPEG: a scan of the mean of each block, and empty scans of all else, which pass over all blocks."""
    blocks = (-(-side // 8)) ** 2
    data = b"\xff\xd8" + head + segment(0xDB, b"\0" + b"\1" * 64)
    data += segment(0xC2 if progressive else 0xC0, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    data += segment(0xC4, b"\0\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1\1" + bytes(14) + b"\xe0\0")
    if not progressive:
        # For each block: the mean as before, and the end of the block.
        bits = np.packbits(np.tile(np.array([0, 1, 0], np.uint8), blocks)).tobytes()
        return data + segment(0xDA, b"\1\1\0\0\x3f\0") + bits + b"\xff\xd9"
    runs = "".join("0" + "1" * 14 for _ in range(-(-blocks // 32767)))
    runs += "1" * (-len(runs) % 8)
    empty = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    data += segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    return data + (segment(0xDA, b"\1\1\0\1\x3f\0") + empty) * (scans - 1) + b"\xff\xd9"


def png(metadata: bytes = b"", *, side: int = 64, interlaced: bool = False) -> bytes:
    rows = zlib.compress(bytes(side * (3 * side + 1) * 2))
    return png_files.png(side, side, rows, interlaced=interlaced, around=metadata)


def bmp(width: int, height: int, runs: bytes, *, bits: int = 8) -> bytes:
    """A BMP compressed with run lengths."""
    colors = 1 << bits
    header = struct.pack("<IiiHHIIIIII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(runs), 0, 0, colors, 0)
    start = 54 + 4 * colors
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + bytes(4 * colors) + runs


def webp(metadata: bytes) -> bytes:
    content = encoded("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", quality=80)[12:] + metadata
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


def pixels() -> Image.Image:
    rows = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return Image.fromarray(rows).resize((40, 60), Image.Resampling.BICUBIC)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels().convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 200, zip=True)
    info.add_itxt("title", "y", "en", "Titel")
    return info


EXIF = Image.Exif()
EXIF[0x010E], EXIF[0x0112] = "a description", 6  # to be rotated
ORDINARY = {
    "baseline": encoded("JPEG"),
    "gray": encoded("JPEG", "L"),
    "CMYK": encoded("JPEG", "CMYK"),
    "progressive": encoded("JPEG", progressive=True),
    "RGB": encoded("JPEG", keep_rgb=True, subsampling=0),
    "restarts": encoded("JPEG", restart_marker_blocks=2),
    "JPEG with metadata": encoded(
        "JPEG", exif=EXIF.tobytes(), icc_profile=b"p" * 100_000, comment=b"c", dpi=(72, 72), xmp=b"<x/>"
    ),
    "bytes between segments": encoded("JPEG")[:20] + b"\0\x12" + encoded("JPEG")[20:],
    "filled before a marker": b"\xff\xd8" + b"\xff" * 9 + encoded("JPEG")[2:],
    "a film after the image": encoded("JPEG") + segment(0xDA, b"") * 100_000,
    **{f"PNG {mode}": encoded("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")},
    "transparent PNG": encoded("PNG", "P", transparency=3),
    "PNG with metadata": encoded("PNG", pnginfo=texts(), icc_profile=b"p" * 9999, exif=EXIF.tobytes(), dpi=(72, 72)),
    "animated PNG": encoded("PNG", save_all=True, append_images=[Image.new("RGB", (40, 60))] * 3),
    "zeros after the image": png() + bytes(2_000_000),
    "interlaced PNG": png(interlaced=True),
    "BMP": encoded("BMP"),
    "compressed BMP": bmp(40, 60, (b"\x28\x07\0\0") * 60 + b"\0\1"),
    "WebP": encoded("WEBP"),
    "animated WebP": encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (40, 60))] * 3),
    "WebP with metadata": encoded("WEBP", lossless=True, exif=EXIF.tobytes(), icc_profile=b"p" * 100),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_the_pixels_are_those_that_pillow_reads(name: str) -> None:
    content = ORDINARY[name]
    with Image.open(io.BytesIO(content)) as expected, open_image(name, content) as opened:
        assert opened.mode == expected.mode and opened.format == expected.format
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), np.asarray(expected.convert("RGB")))
        if expected.format in ("JPEG", "PNG"):
            assert "exif" not in opened.info and "icc_profile" not in opened.info and not opened.getexif()


@pytest.mark.parametrize("name", [name for name, content in ORDINARY.items() if len(content) < 20_000])
def test_a_truncated_image_is_not_read_in_part(name: str) -> None:
    content = ORDINARY[name]
    for end in range(0, len(content) * 3 // 4, max(1, len(content) // 40)):
        try:
            with Image.open(io.BytesIO(content[:end])) as expected:
                want = np.asarray(expected.convert("RGB"))
        except Exception:
            with pytest.raises(Exception):  # noqa: B017 - the types of Pillow's errors are not documented
                open_image(name, content[:end]).load()
        else:
            np.testing.assert_array_equal(np.asarray(open_image(name, content[:end]).convert("RGB")), want)


@pytest.mark.parametrize(("side", "scans"), [(7000, 21), (7000, 7000), (2000, 250), (64, 201), (8, 100_000)])
def test_a_jpeg_of_too_many_scans_is_refused_at_once(side: int, scans: int) -> None:
    content = jpeg(side, scans)
    start = time.process_time()
    with pytest.raises(CorruptImage, match=rf"big\.jpg: a JPEG of .* in {scans:,} scans takes too long to decode"):
        open_image("big.jpg", content)
    assert time.process_time() - start < 1  # seconds; decoding takes up to 20


def test_a_large_compressed_bmp_is_refused() -> None:
    with pytest.raises(CorruptImage, match=r"a compressed BMP of 49,000,000 pixels takes too long to decode"):
        open_image("big.bmp", bmp(7000, 7000, b"\1\1\0\0" * 7000))


@pytest.mark.parametrize(
    "content",
    [jpeg(8, 1, head=segment(0xFE, b"") * 100_000), png(chunk(b"teSt", b"") * 50_000)],
    ids=["segments", "chunks"],
)
def test_too_many_parts_are_refused(content: bytes) -> None:
    with pytest.raises(CorruptImage, match=r"a: a (JPEG|PNG) of more than 100,000 (segments|chunks); remove"):
        open_image("a", content)


def decode(content: bytes) -> None:
    with contextlib.suppress(CorruptImage, ValueError, OSError, SyntaxError):
        open_image("a", content).convert("RGB")


def cost(content: bytes) -> float:
    """CPU time to decode a file or to find that it is corrupt, in seconds."""
    times = []
    for _ in range(3):
        start = time.process_time()
        decode(content)
        times.append(time.process_time() - start)
    return min(times)


ZEROS, NOT_UTF8 = (zlib.compress(bytes((value,)) * 1_000_000, 9) for value in (0, 255))
EXIF_PART = segment(0xE1, b"Exif\0\0" + b"x" * 10)
DIRECTORY = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000)
DIRECTORY += b"".join(struct.pack("<HHII", tag, 7, 60_000, 8) for tag in range(5000))
# For each reader a file that is the worst for it, of n times about 100 kB.
WORST: dict[str, Callable[[int], bytes]] = {
    "parts of EXIF data": lambda n: jpeg(64, 1, head=EXIF_PART * 5000 * n),
    "directories of EXIF data": lambda n: jpeg(64, 1, head=segment(0xE1, b"Exif\0\0" + DIRECTORY) * 2 * n),
    "parts of a color profile": lambda n: jpeg(64, 1, head=segment(0xE2, b"ICC_PROFILE\0\1\2x") * 5000 * n),
    "comments": lambda n: jpeg(64, 1, head=segment(0xFE, b"") * 10_000 * n),
    "quantization tables": lambda n: jpeg(64, 1, head=segment(0xDB, (b"\0" + b"\1" * 64) * 1000) * 2 * n),
    "bytes between segments": lambda n: jpeg(64, 1, head=b"\0\xff\0" * 33_000 * n),
    "filled before a marker": lambda n: jpeg(64, 1, head=b"\xff" * 100_000 * n),
    "compressed profiles": lambda n: png(chunk(b"iCCP", b"a\0\0" + ZEROS) * 50 * n),
    "compressed texts": lambda n: png(chunk(b"zTXt", b"a\0\0" + ZEROS[:-4] + b"bad!") * 50 * n),
    "invalid texts": lambda n: png(chunk(b"iTXt", b"a\0\1\0\0\0" + NOT_UTF8) * 50 * n),
    "empty chunks": lambda n: png(chunk(b"teSt", b"") * 4000 * n),
    "frames": lambda n: png(chunk(b"acTL", struct.pack(">II", 4000 * n, 0)) + chunk(b"fdAT", bytes(4)) * 6000 * n),
    "empty parts of pixels": lambda n: png(chunk(b"IDAT", b"") * 2000 * n),
    "chunks of WebP": lambda n: webp((b"ABCD" + bytes(4)) * 12_000 * n),
    "empty lines": lambda n: bmp(64, 64, b"\0\0" * 50_000 * n),
}
# The same for images of n times 1/4 megapixel.
WORST_PIXELS: dict[str, Callable[[int], bytes]] = {
    "scans": lambda n: jpeg(int(500 * n**0.5), 200),
    "one scan": lambda n: jpeg(int(500 * n**0.5), 1, progressive=False),
    "lines of one pixel": lambda n: bmp(500, 500 * n, b"\1\1\0\0" * 500 * n),
    "runs of two colors": lambda n: bmp(500, 500 * n, (b"\xfa\x12" * 2 + b"\0\0") * 500 * n, bits=4),
    "interlaced rows": lambda n: png(side=int(500 * n**0.5), interlaced=True),
}


@pytest.fixture(scope="module")
def unit() -> float:
    """CPU time to decode an ordinary JPEG of one megapixel, in seconds."""
    return cost(jpeg(1000, 1, progressive=False))


@pytest.mark.parametrize("name", [*WORST, *WORST_PIXELS])
def test_the_time_grows_no_faster_than_the_size(name: str, unit: float) -> None:
    make = {**WORST, **WORST_PIXELS}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # metadata are not even looked at
        once, twice, four_times = (cost(make(n)) for n in (1, 2, 4))
    slack = 2 * unit
    assert twice <= 2 * (2 * once + slack) and four_times <= 2 * (4 * once + slack)
    # 0.4 MB, or 1 megapixel.
    assert four_times <= 100 * unit, f"{four_times / unit:.0f} times as long as an ordinary image"
