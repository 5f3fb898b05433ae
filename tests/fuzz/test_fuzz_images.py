"""JPEG and PNG files, whole ones and crops, and the thumbnails of a page."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fuzz.harness import attempt, fuzz, mutated
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from reid.data.images.decode import decode_image
from reid.data.loading.whole_images import WholeImage, read_whole_image
from reid.report.thumbnails import thumbnails


def drawn(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


TOLD = PngImagePlugin.PngInfo()
TOLD.add_text("comment", "x" * 200, zip=True)
JPEGS = [
    *(drawn("JPEG"), drawn("JPEG", "L"), drawn("JPEG", "CMYK"), drawn("JPEG", progressive=True, quality=80)),
    *(drawn("JPEG", exif=Image.Exif().tobytes(), dpi=(72, 72)), drawn("JPEG", icc_profile=b"p" * 200)),
]
PNGS = [
    *(
        drawn("PNG"),
        drawn("PNG", "P"),
        drawn("PNG", "RGBA"),
        drawn("PNG", "1"),
        drawn("PNG", "I;16"),
        drawn("PNG", "LA"),
    ),
    *(drawn("PNG", pnginfo=TOLD), drawn("PNG", icc_profile=b"p" * 200), drawn("PNG", save_all=True, append_images=[])),
]
OTHERS = [drawn(kind) for kind in ("BMP", "GIF", "TIFF", "PPM", "WEBP", "TGA", "ICO", "PCX", "SGI", "IM", "EPS", "PDF")]


def read(folder: Path, target: str, data: bytes) -> None:
    path = str(folder / "image.jpg")
    Path(path).write_bytes(data)
    pixels = attempt(target, lambda: decode_image(path, (32, 16)))
    assert pixels is None or (pixels.shape == (3, 32, 16) and pixels.dtype == np.uint8)


@fuzz(mutated(*JPEGS))
def test_mutated_jpegs(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, "images: JPEG", data)


@fuzz(mutated(*PNGS))
def test_mutated_pngs(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, "images: PNG", data)


@fuzz(mutated(*OTHERS))
def test_other_files_under_the_name_of_a_jpeg(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, "images: of other kinds", data)


@fuzz(
    mutated(*JPEGS[:2], *PNGS[:3]),
    st.one_of(st.none(), st.tuples(*[st.one_of(st.floats(), st.integers(-10, 40))] * 4)),
    st.integers(-1, 40),
)
def test_whole_images_and_boxes(tmp_path: Path, data: bytes, box: tuple[float, ...] | None, side: int) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    whole = WholeImage(str(path), box)  # type: ignore[arg-type]
    pixels = attempt("images: whole, with boxes", lambda: read_whole_image(whole, longest_side=side))
    assert pixels is None or (pixels.shape[0] == 3 and pixels.size and pixels.dtype == np.uint8)


@fuzz(mutated(*JPEGS, *PNGS, *OTHERS))
def test_thumbnails(tmp_path: Path, data: bytes) -> None:
    path = str(tmp_path / "image.jpg")
    Path(path).write_bytes(data)
    attempt("images: thumbnails", lambda: thumbnails([path]))
