"""CUHK01: file names, the random halves, the official zip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reid.data import DATASETS, split_table
from reid.errors import InputError
from reid.records import Split

read = DATASETS["cuhk01"]


def campus(folder: Path, persons: int) -> Path:
    """Empty images, four of each person."""
    (folder / "campus").mkdir(parents=True)
    for person in range(1, persons + 1):
        for image in range(1, 5):
            (folder / "campus" / f"{person:04d}{image:03d}.png").touch()
    return folder


def read_loosely(root: Path, seed: int = 0) -> Split:
    return read(root, strict=False, cache=root / "cache", seed=seed)


def test_images_one_and_two_are_of_camera_one(tmp_path: Path) -> None:
    split = read_loosely(campus(tmp_path / "CUHK01", 5).parent)
    cameras = {Path(image.path).stem[-3:]: image.camera for image in (*split.train, *split.query, *split.gallery)}
    assert cameras == {"001": 1, "002": 1, "003": 2, "004": 2}
    everyone = (*split.train, *split.query, *split.gallery)
    assert all(int(Path(image.path).stem[:4]) == image.identity for image in everyone)
    assert {image.camera for image in split.query} == {1} and {image.camera for image in split.gallery} == {2}
    assert len(everyone) == 20 and len(split.train_labels()) == 2


def test_the_halves_follow_from_the_seed_alone(tmp_path: Path) -> None:
    one, other = (campus(tmp_path / name / "cuhk01", 60) for name in "ab")
    assert list(read_loosely(one).train_labels()) == list(read_loosely(other).train_labels())
    assert list(read_loosely(one).train_labels()) != list(read_loosely(one, seed=1).train_labels())


def test_the_official_set_gives_485_and_486(tmp_path: Path) -> None:
    split = read(campus(tmp_path / "CUHK01", 971), cache=tmp_path, seed=3)
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in split_table(split).splitlines()[2:]]
    assert rows == [["485", "1,940"], ["486", "972"], ["486", "972"]]
    (tmp_path / "CUHK01" / "campus" / "0971004.png").unlink()
    with pytest.raises(InputError, match=r"CUHK01 differs from the official CUHK01: \w+ has (1,939|971) images, not"):
        read(tmp_path, cache=tmp_path, seed=3)


def test_the_zip_is_read_like_the_folder(tmp_path: Path, make_zip: Callable[..., Path]) -> None:
    folder = campus(tmp_path / "packed" / "any", 4)
    (tmp_path / "root").mkdir()
    make_zip(tmp_path / "root" / "CUHK01.zip", folder)
    (from_zip, from_folder) = (read_loosely(root) for root in (tmp_path / "root", folder))
    assert [Path(image.path).name for image in from_zip.train] == [Path(image.path).name for image in from_folder.train]
    assert Path(from_zip.train[0].path).is_relative_to(tmp_path / "root" / "cache")


@pytest.mark.parametrize("name", ["001001.png", "0001005.png", "0001000.png", "person.png", "00010011.png"])
def test_a_name_that_does_not_parse_is_reported(tmp_path: Path, name: str) -> None:
    (campus(tmp_path / "CUHK01", 2) / "campus" / name).touch()
    with pytest.raises(InputError, match=r"such as 0001001\.png \(1 of 9 images in campus") as caught:
        read_loosely(tmp_path)
    assert name in str(caught.value)


def test_an_empty_and_a_missing_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"CUHK01 not found; the folder is empty, but must contain CUHK01/ or CUHK01\.zip"
    ):
        read_loosely(tmp_path)
    campus(tmp_path / "CUHK01", 0)
    with pytest.raises(InputError, match="campus: contains no image"):
        read_loosely(tmp_path)
