"""CUHK03-NP in both published forms; official counts by the protocol's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from reid.data import DATASETS
from reid.data.datasets.cuhk03np import LAYOUTS
from reid.errors import InputError
from reid.records import Split

NAMES = {
    "bounding_box_train": ["0001_c1_1.png", "0001_c2_6.png", "0002_c2_11.png"],
    "query": ["0003_c1_22.png", "0003_c2_27.png"],
    "bounding_box_test": ["0003_c1_21.png", "0003_c2_26.png"],
}
LISTED = ["1_001_1_01.png", "1_001_2_06.png", "1_002_1_01.png", "1_002_1_02.png", "1_002_2_06.png", "1_002_2_07.png"]
PROTOCOL: dict[str, Any] = {
    "filelist": np.array([[name] for name in LISTED], dtype=object),
    "labels": np.array([[1], [1], [2], [2], [2], [2]], dtype=np.uint16),
    "camId": np.array([[1], [2], [1], [1], [2], [2]], dtype=np.uint8),
    "train_idx": np.array([[1], [2]], dtype=np.uint16),
    "query_idx": np.array([[3], [6]], dtype=np.uint16),
    "gallery_idx": np.array([[4], [5]], dtype=np.uint16),
}


def read(root: Path, box: str = "labelled", *, strict: bool = False) -> Split:
    return DATASETS[f"cuhk03np_{box}"](root, strict=strict, cache=root / "cache")


def labels_of(split: Split, part: str) -> list[tuple[str, int, int]]:
    return [(Path(image.path).name, image.identity, image.camera) for image in getattr(split, part)]


@pytest.fixture
def protocol(tmp_path: Path) -> Callable[..., Path]:
    """Write the `.mat` of the labeled boxes, with some variables replaced, and empty images beside it."""

    def write(images: str = "cuhk03_labeled", **changes: Any) -> Path:
        folder = tmp_path / "cuhk03"
        (folder / images).mkdir(parents=True)
        for name in LISTED:
            (folder / images / name).touch()
        content = {key: value for key, value in {**PROTOCOL, **changes}.items() if value is not None}
        scipy.io.savemat(folder / "cuhk03_new_protocol_config_labeled.mat", content)
        return folder

    return write


@pytest.mark.parametrize("place", ["cuhk03-np/labeled", "CUHK03-NP/Labeled", "labeled", "."])
def test_the_three_folders_are_found_and_read(tmp_path: Path, make_folder: Callable[..., Path], place: str) -> None:
    make_folder(tmp_path / "root" / place, NAMES)
    split = read(tmp_path / "root")
    assert split.name == "cuhk03np_labelled"
    assert labels_of(split, "train") == [("0001_c1_1.png", 1, 1), ("0001_c2_6.png", 1, 2), ("0002_c2_11.png", 2, 2)]
    assert labels_of(split, "query") == [("0003_c1_22.png", 3, 1), ("0003_c2_27.png", 3, 2)]


def test_labeled_and_detected_are_distinguished(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    for folder in ("labeled", "detected"):
        make_folder(tmp_path / "cuhk03-np" / folder, NAMES)
    for box, folder in (("labelled", "labeled"), ("detected", "detected")):
        assert Path(read(tmp_path, box).train[0].path).parts[-3] == folder


@pytest.mark.parametrize("images", ["cuhk03_labeled", "images_labeled"])
@pytest.mark.parametrize("above", [True, False])
def test_the_protocol_is_read_with_its_images(protocol: Callable[..., Path], images: str, above: bool) -> None:
    folder = protocol(images)
    split = read(folder.parent if above else folder)
    assert labels_of(split, "train") == [("1_001_1_01.png", 1, 1), ("1_001_2_06.png", 1, 2)]
    assert labels_of(split, "query") == [("1_002_1_01.png", 2, 1), ("1_002_2_07.png", 2, 2)]
    assert labels_of(split, "gallery") == [("1_002_1_02.png", 2, 1), ("1_002_2_06.png", 2, 2)]
    assert all(Path(image.path).parent == folder / images for image in split.gallery)


@pytest.mark.parametrize(("box", "train", "gallery"), [("labelled", "7,368", "5,328"), ("detected", "7,365", "5,332")])
def test_the_official_counts_are_required(
    tmp_path: Path, make_folder: Callable[..., Path], box: str, train: str, gallery: str
) -> None:
    make_folder(tmp_path / LAYOUTS[box].folders[0], NAMES)
    with pytest.raises(InputError) as caught:
        read(tmp_path, box, strict=True)
    message = str(caught.value)
    for fragment in (
        f"train has 3 images, not {train}",
        "2 identities, not 767",
        "not 1,400",
        f"2 images, not {gallery}",
    ):
        assert fragment in message
    assert "\n" not in message


def test_the_official_counts_are_required_of_the_protocol_too(protocol: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"cuhk03 differs from .*CUHK03-NP \(labeled\): train has 2 images, not 7,368"):
        read(protocol(), strict=True)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"query_idx": None}, r"labeled\.mat: query_idx missing"),
        ({"query_idx": np.array([[7]])}, "query_idx must contain numbers from 1 to 6"),
        ({"gallery_idx": np.array([[0]])}, "gallery_idx must contain numbers from 1 to 6"),
        ({"camId": np.array([[1], [2]])}, "6 names in filelist, but 6 labels and 2 camId"),
        ({"query_idx": np.array([[2]])}, "identity 1 is in 'train' and in 'query'"),
    ],
)
def test_an_inconsistent_protocol_is_reported(
    protocol: Callable[..., Path], changes: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(InputError, match=fragment):
        read(protocol(**changes))


def test_missing_images_of_the_protocol_are_reported(protocol: Callable[..., Path]) -> None:
    folder = protocol()
    (folder / "cuhk03_labeled" / LISTED[3]).unlink()
    with pytest.raises(
        InputError, match=r"1_002_1_02\.png: no such image, but .*labeled\.mat lists it \(1 missing in gallery"
    ):
        read(folder)
    for path in (folder / "cuhk03_labeled").iterdir():
        path.unlink()
    (folder / "cuhk03_labeled").rmdir()
    with pytest.raises(InputError, match=r"neither .*cuhk03_labeled nor .*images_labeled is a folder"):
        read(folder)


def test_a_corrupt_protocol_is_reported(protocol: Callable[..., Path]) -> None:
    folder = protocol()
    path = folder / "cuhk03_new_protocol_config_labeled.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="not a MATLAB file of version 7, or a corrupt one"):
        read(folder)


def test_a_zip_has_to_be_extracted_by_the_user(tmp_path: Path) -> None:
    (tmp_path / "cuhk03-np.zip").touch()
    with pytest.raises(InputError, match=r"cuhk03-np\.zip: .*extract it yourself"):
        read(tmp_path / "cuhk03-np.zip")
    with pytest.raises(
        InputError, match=r"CUHK03-NP \(labeled\) not found; the folder contains cuhk03-np\.zip.*cuhk03-np/labeled/"
    ):
        read(tmp_path)
