"""One list of suffixes for every place that reads images, and a warning of those that it skips."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from reid.data.datasets.folder import read_tree
from reid.data.images.decode import read_image
from reid.inference.export.sample_images import read_crops
from reid.io.image_files import IMAGE_SUFFIXES, is_image, list_images
from reid.io.images import FORMATS, CorruptImage
from reid.search.gallery import list_crops

NAMES = ("a.jpg", "b.JPG", "c.jpeg", "d.png", "e.BMP", "f.webp", "g.WebP")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of every format, others, and files that are no images; below `anna` and `bo`."""
    for person in ("anna", "bo"):
        (tmp_path / person).mkdir()
        for name in (*NAMES, "h.tif", "i.TIFF", "j.gif", ".hidden.tif"):
            kind = {"jpg": "jpeg", "tif": "tiff"}.get(name[2:].lower(), name[2:].lower())
            Image.new("RGB", (4, 8), (200, 0, 0)).save(tmp_path / person / name, kind if name[0] != "." else "tiff")
        (tmp_path / person / "Thumbs.db").touch()
    return tmp_path


def test_every_format_that_is_decoded_has_a_suffix() -> None:
    extensions = Image.registered_extensions()
    assert {extensions[suffix] for suffix in IMAGE_SUFFIXES} == set(FORMATS)
    assert not is_image("a.tif") and not is_image(".a.jpg") and not is_image("jpg")


def test_every_place_reads_the_same_images_and_counts_the_others(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert tuple(list_images(folder / "anna")) == NAMES
    split = read_tree(folder, cache=folder, pattern="{identity}/*")
    assert len(split.train) + len(split.query) + len(split.gallery) == 2 * len(NAMES)
    assert [crop.path for crop in list_crops(folder).crops] == [
        f"{who}/{name}" for who in ("anna", "bo") for name in NAMES
    ]
    lines = [record.getMessage() for record in caplog.records]
    ending = f"images must end in {', '.join(IMAGE_SUFFIXES)}"
    assert lines == [
        f"{folder / 'anna'}: skipped 1 .gif, 1 .tif, 1 .tiff; {ending}",
        *[f"{folder}: skipped 2 .gif, 2 .tif, 2 .tiff; {ending}"] * 2,
    ]
    assert len(read_crops([folder], (8, 4))) == 2 * len(NAMES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "a web page, probably of a failed download; download the image again"),
        (b"II*\0rest", "a TIFF file, convert it to PNG"),
        (b"\0\0\0\x18ftypheic", "a HEIC or AVIF file, convert it to PNG"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer; run git lfs pull"),
        (b"", "the file is empty"),
        (b"\1\2\3", "or a corrupt one"),
    ],
)
def test_what_was_saved_as_an_image_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(CorruptImage, match=f"a\\.jpg: .*{words}"):
        read_image(str(tmp_path / "a.jpg"))
    with pytest.raises(CorruptImage, match=f"upload: .*{words}$"):
        read_image("upload", content)
