"""MSMT17: list files, both versions, identities that start at 0 twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reid.data import DATASETS, split_table
from reid.data.datasets import msmt17
from reid.data.datasets.layout import PartCounts
from reid.errors import InputError
from reid.records import Split

read = DATASETS["msmt17"]
LISTS: dict[str, list[str]] = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_12_0114noon_0284_2_ex.jpg 1"],
    "list_val.txt": ["0000/0000_001_14_0303morning_0245_0.jpg 0"],
    "list_query.txt": ["0000/0000_000_02_0303morning_0001_0.jpg 0", "0002/0002_000_03_0303noon_0002_1.jpg 2"],
    "list_gallery.txt": ["0000/0000_001_15_0303morning_0003_0.jpg 0", "0002/0002_001_03_0303noon_0002_2.jpg 2"],
}


def write(folder: Path, places: tuple[str, str] = ("train", "test"), **changes: list[str] | None) -> Path:
    """Write the lists, some replaced by stem, and an empty file for each image of the original ones."""
    for place in places:
        (folder / place).mkdir(parents=True)
    for name, lines in LISTS.items():
        place = places[0] if name in msmt17.LISTS["train"] else places[1]
        for line in lines:
            image = folder / place / line.split()[0]
            image.parent.mkdir(exist_ok=True)
            image.touch()
        content = changes.get(name.removesuffix(".txt"), lines)
        if content is not None:
            (folder / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return folder


def read_loosely(root: Path) -> Split:
    return read(root, strict=False, cache=root / "cache")


@pytest.mark.parametrize(
    ("place", "places", "name"),
    [
        ("MSMT17_V1", ("train", "test"), "msmt17_v1"),
        ("MSMT17_V2", ("mask_train_v2", "mask_test_v2"), "msmt17_v2"),
        ("msmt17/MSMT17_V2", ("mask_train_v2", "mask_test_v2"), "msmt17_v2"),
        (".", ("train", "test"), "msmt17_v1"),
    ],
)
def test_both_versions_are_found_and_named(tmp_path: Path, place: str, places: tuple[str, str], name: str) -> None:
    folder = write(tmp_path / place, places)
    split = read_loosely(tmp_path)
    assert split.name == name
    assert split.train[0].path == str(folder / places[0] / "0000" / "0000_000_01_0303morning_0015_0.jpg")
    assert split_table(split).startswith(name)


def test_train_is_train_and_val_and_no_number_is_given_twice(tmp_path: Path) -> None:
    split = read_loosely(write(tmp_path / "MSMT17_V1"))
    assert [(image.identity, image.camera) for image in split.train] == [(1, 1), (2, 12), (1, 14)]
    # Testing counts from 0 again: 0 and 2 there follow the two of training.
    assert [(image.identity, image.camera) for image in split.query] == [(3, 2), (5, 3)]
    assert [(image.identity, image.camera) for image in split.gallery] == [(3, 15), (5, 3)]


def test_lists_of_windows_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "MSMT17_V1")
    path = folder / "list_query.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert len(read_loosely(folder).query) == 2


def test_the_official_counts_are_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "MSMT17_V1")
    with pytest.raises(InputError) as caught:
        read(folder, cache=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{folder} differs from the official MSMT17: train has 3 images, not 32,621")
    for fragment in ("2 identities, not 1,041", "3 cameras, not 15", "2 images, not 11,659", "2 images, not 82,161"):
        assert fragment in message
    assert "2 identities, not 3,060" in message and "\n" not in message
    small = {"train": PartCounts(3, 2, 3), "query": PartCounts(2, 2, 2), "gallery": PartCounts(2, 2, 2)}
    monkeypatch.setattr(msmt17, "LAYOUT", dataclasses.replace(msmt17.LAYOUT, official=small))
    assert len(read(folder, cache=tmp_path).train) == 3


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"list_val": None}, r"list_val\.txt: no such list"),
        ({"list_query": []}, r"list_query\.txt lists no image"),
        (
            {"list_query": [*LISTS["list_query.txt"], "0002/0002_009_03_0303noon_0002_1.jpg 2"]},
            r"0002_009_03_0303noon_0002_1\.jpg: no such image, but list_query\.txt lists it \(1 of 3 missing\)",
        ),
        ({"list_train": ["0000/person.jpg 0"]}, r"list_train\.txt, line 1: '0000/person\.jpg 0' is not a path and"),
        ({"list_train": ["0000/0000_000_01_0303morning_0015_0.jpg"]}, "line 1: .* is not a path and an identity"),
        ({"list_train": ["0000/0000_000_01_0303morning_0015_0.jpg -1"]}, "line 1: .* is not a path and an identity"),
        (
            {"list_train": ["0000/0000_000_00_0303morning_0015_0.jpg 0"]},
            ".* not a path .*; cameras count from 1",
        ),
        ({"list_train": ["../0000_000_01_0303morning_0015_0.jpg 0"]}, "line 1: .* is not below train/"),
        ({"list_val": LISTS["list_train.txt"]}, r"list_train\.txt and list_val\.txt lists an image twice"),
    ],
)
def test_errors_are_reported_in_one_line(tmp_path: Path, changes: dict[str, list[str] | None], fragment: str) -> None:
    folder = write(tmp_path / "MSMT17_V1", **changes)
    with pytest.raises(InputError, match=fragment) as caught:
        read_loosely(tmp_path)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_lists_without_images_and_an_archive_are_reported(tmp_path: Path) -> None:
    (tmp_path / "MSMT17_V1.tar.gz").touch()
    with pytest.raises(InputError, match=r"contains MSMT17_V1\.tar\.gz.*MSMT17_V1/.*extract its archive yourself"):
        read_loosely(tmp_path)
    (tmp_path / "MSMT17_V1" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match=r"MSMT17_V1: .*contains train, but neither list_train\.txt nor list_val\.txt"):
        read_loosely(tmp_path)
    (tmp_path / "MSMT17_V1" / "train").rmdir()
    (tmp_path / "MSMT17_V1").rmdir()
    write(tmp_path / "MSMT17_V1", ("train", "tests"))
    with pytest.raises(InputError, match="are missing; found neither train/ and test/ nor mask_train_v2/"):
        read_loosely(tmp_path)


def test_a_list_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "MSMT17_V1")
    (folder / "list_gallery.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list_gallery\.txt: not a UTF-8 text file"):
        read_loosely(folder)
