"""Malicious dataset files: they try to run code, to write outside their folder or to fill the memory."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from reid.data.datasets.cuhk03np import read_cuhk03np_detected
from reid.data.images.decode import decode_image
from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.report.thumbnails import thumbnails


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "PPM", "PDF", "IM"])
def test_only_a_few_image_formats_are_read(tmp_path: Path, kind: str) -> None:
    """Pillow passes an EPS file to another program, whatever its file name."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, kind)
    with pytest.raises(InputError, match="unreadable"):
        decode_image(str(path), (8, 8))
    assert thumbnails([str(path)]) == {str(path): None}


def zipped(path: Path, name: str = "D/query/a.jpg", kind: int = zipfile.ZIP_DEFLATED, size: int = 100) -> bytearray:
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr(name, bytes(size))
    return bytearray(path.read_bytes())


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words):
        extract_zip(path, folders=("query",), cache=path.parent / "cache", progress=False)
    assert not (path.parent / "cache").exists() or not any((path.parent / "cache").iterdir())


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_cannot_be_undone_in_chunks(tmp_path: Path, kind: int) -> None:
    zipped(tmp_path / "a.zip", kind=kind)
    refused(tmp_path / "a.zip", "not compressed by deflate")


def test_an_entry_larger_than_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped(tmp_path / "a.zip", size=50 * 2**20)
    place = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, place + 24, 10)
    (tmp_path / "a.zip").write_bytes(data)
    pieces = []
    real = zipfile.ZipExtFile._read1  # type: ignore[attr-defined]

    def watched(self: object, length: int) -> bytes:
        pieces.append(length)
        return real(self, length)

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", watched)
    refused(tmp_path / "a.zip", "not a readable zip")
    assert max(pieces) <= 2**20


def test_a_name_in_another_encoding_than_declared(tmp_path: Path) -> None:
    data = zipped(tmp_path / "a.zip", "D/query/aaaa.jpg").replace(b"aaaa", b"\xff\xfe\xfd\xfc")
    struct.pack_into("<H", data, data.rfind(b"PK\x01\x02") + 8, 0x800)
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", "not a readable zip")


def test_a_link_instead_of_the_extracted_folder(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip")
    folder = extract_zip(tmp_path / "a.zip", folders=("query",), cache=tmp_path / "cache", progress=False)
    (folder / "query" / "a.jpg").rename(tmp_path / "kept.jpg")
    (folder / ".unpacked").unlink()
    (folder / "query").rmdir()
    folder.rmdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").touch()
    folder.symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="is a link"):
        extract_zip(tmp_path / "a.zip", folders=("query",), cache=tmp_path / "cache", progress=False)
    assert (tmp_path / "outside" / "mine").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("filelist", np.array([["../x.png"], ["b.png"]], dtype=object), "is not a file name"),
        ("filelist", np.array([["/etc/passwd"], ["b.png"]], dtype=object), "is not a file name"),
        ("camId", np.array([0.5, 1]), "camId must contain integers"),
        ("labels", np.array([["a"], [{"x": 1}]], dtype=object), "labels is not a plain array"),
    ],
)
def test_the_protocol_of_cuhk03_stays_in_its_folder(tmp_path: Path, key: str, value: np.ndarray, words: str) -> None:
    protocol = {"filelist": np.array([["a.png"], ["b.png"]], dtype=object), "labels": [1, 2], "camId": [1, 2]}
    protocol |= {f"{part}_idx": [1, 2] for part in ("train", "query", "gallery")}
    (tmp_path / "cuhk03_detected").mkdir()
    for place in (tmp_path, tmp_path / "cuhk03_detected"):
        for name in ("a.png", "b.png", "x.png"):
            (place / name).touch()
    path = tmp_path / "cuhk03_new_protocol_config_detected.mat"
    scipy.io.savemat(path, {**protocol, key: value})
    with pytest.raises(InputError, match=words):
        read_cuhk03np_detected(tmp_path, strict=False, cache=tmp_path)


def test_a_mat_file_that_claims_to_be_large(tmp_path: Path) -> None:
    from reid.io.feature_files import read_features

    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"x": np.zeros((4, 10 * 2**20))}, do_compression=True)
    (tmp_path / "a_query.mat").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"uncompressed size exceeds 100 times the file size \d+,\d+"):
        read_features(tmp_path / "a_query.mat")
