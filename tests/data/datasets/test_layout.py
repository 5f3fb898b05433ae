"""Finding, reading and checking a dataset, shown with the names of Market-1501."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid.data.datasets.folder import read_tree
from reid.data.datasets.layout import FOLDER_PATTERN, PARTS, PartCounts, count_part, read_folder, split_table
from reid.data.datasets.market1501 import LAYOUT, read_market1501
from reid.errors import InputError
from reid.records import ImageRecord, Split

OFFICIAL = "Market-1501-v15.09.15"


def read(root: Path, tmp_path: Path) -> Split:
    return read_market1501(root, strict=False, cache=tmp_path / "cache")


def test_labels_come_from_the_names_in_sorted_order(tmp_path, make_folder):
    folder = make_folder(tmp_path / OFFICIAL)
    split = read(tmp_path, tmp_path)
    assert split.name == "market1501"
    assert [(image.identity, image.camera) for image in split.train] == [(2, 1), (2, 2), (7, 3)]
    assert [(image.identity, image.camera) for image in split.query] == [(1, 1), (3, 2)]
    assert [(image.identity, image.camera) for image in split.gallery] == [(-1, 1), (0, 1), (1, 2), (3, 1), (3, 3)]
    assert split.query[0].path == str(folder / "query" / "0001_c1s1_001051_00.jpg")


@pytest.mark.parametrize("place", [OFFICIAL, "market1501", f"market1501/{OFFICIAL}", f"{OFFICIAL}/{OFFICIAL}", "."])
def test_the_folder_is_found_from_above_and_from_within(tmp_path, make_folder, place):
    make_folder(tmp_path / "root" / place)
    assert len(read(tmp_path / "root", tmp_path).train) == 3


@pytest.mark.parametrize("given", ["folder", "zip"])
def test_the_zip_is_read_like_the_folder(tmp_path, make_folder, make_zip, given):
    folder = make_folder(tmp_path / "packed" / OFFICIAL)
    root = tmp_path / "root"
    root.mkdir()
    archive = make_zip(root / f"{OFFICIAL}.zip", folder)
    from_zip = read(root if given == "folder" else archive, tmp_path)
    from_folder = read(folder, tmp_path)
    for part in ("train", "query", "gallery"):
        assert [(Path(image.path).name, image.identity, image.camera) for image in getattr(from_zip, part)] == [
            (Path(image.path).name, image.identity, image.camera) for image in getattr(from_folder, part)
        ]
    assert Path(from_zip.train[0].path).is_relative_to(tmp_path / "cache")


def test_other_files_are_ignored(tmp_path, make_folder):
    folder = make_folder(tmp_path / OFFICIAL)
    for name in ("Thumbs.db", "._0002_c1s1_000451_03.jpg", "notes.txt"):
        (folder / "query" / name).write_bytes(b"x")
    (folder / "query" / "0009_c1s1_000001_00.jpg").mkdir()
    assert len(read(tmp_path, tmp_path).query) == 2


def test_a_wrong_an_empty_and_a_missing_folder_are_distinguished(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong" / "holiday").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("x")
    for name, fragment in (
        ("empty", "is empty"),
        ("wrong", "contains holiday"),
        ("none", "no such folder"),
        ("file.txt", "neither a folder nor a zip"),
    ):
        with pytest.raises(InputError, match=fragment) as caught:
            read(tmp_path / name, tmp_path)
        assert str(tmp_path / name) in str(caught.value) and OFFICIAL in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_and_an_empty_part_are_named(tmp_path, make_folder):
    folder = make_folder(tmp_path / OFFICIAL)
    for path in (folder / "query").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="query: contains no image"):
        read(tmp_path, tmp_path)
    (folder / "query").rmdir()
    with pytest.raises(InputError, match="missing folder: query"):
        read(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "name", ["person.jpg", "0001_c1_000451.jpg", "0001_c0s1_000451_00.jpg", "-2_c1s1_000451_00.jpg"]
)
def test_a_name_that_does_not_parse_is_named_with_the_number_of_such(tmp_path, make_folder, make_image, name):
    folder = make_folder(tmp_path / OFFICIAL)
    make_image(folder / "query" / name)
    make_image(folder / "query" / "zzz.jpg")
    with pytest.raises(InputError, match="2 of 4 images in query") as caught:
        read(tmp_path, tmp_path)
    assert str(folder / "query" / name) in str(caught.value) and LAYOUT.example in str(caught.value)


def test_cameras_that_count_from_0_are_named(tmp_path, make_folder):
    names = {part: [f"000{len(part) % 7}_c0s1_01.jpg"] for part in PARTS.values()}
    make_folder(tmp_path / OFFICIAL, names)
    with pytest.raises(InputError, match="cameras count from 1, these from 0"):
        read(tmp_path, tmp_path)


def test_a_folder_for_each_person_is_named_with_what_reads_it(tmp_path, make_folder):
    folder = make_folder(tmp_path / OFFICIAL)
    as_files = read(tmp_path, tmp_path)
    for path in list(folder.glob("*/*.jpg")):
        person = path.parent / path.name.split("_")[0]
        person.mkdir(exist_ok=True)
        path.rename(person / path.name)
    with pytest.raises(InputError, match=r"bounding_box_train: contains no image, but its subfolders") as caught:
        read(tmp_path, tmp_path)
    assert "DATASETS.NAME folder" in str(caught.value) and repr(FOLDER_PATTERN) in str(caught.value)
    as_tree = read_tree(folder, cache=tmp_path, pattern=FOLDER_PATTERN)
    assert split_table(as_tree).splitlines()[1:] == split_table(as_files).splitlines()[1:]


def test_a_count_off_by_one_is_reported_with_both_numbers(tmp_path, make_folder):
    make_folder(tmp_path / OFFICIAL)
    with pytest.raises(InputError) as caught:
        read_market1501(tmp_path, cache=tmp_path / "cache")
    message = str(caught.value)
    assert "train has 3 images, not 12,936" in message
    assert "gallery has 1 distractors, not 2,798" in message
    assert "train has 3 cameras, not 6" in message
    assert "DATASETS.STRICT False" in message and "\n" not in message


def test_a_single_camera_leaves_nothing_to_evaluate(tmp_path, make_folder):
    make_folder(
        tmp_path / OFFICIAL,
        {
            "bounding_box_train": ["0002_c1s1_000451_03.jpg"],
            "query": ["0001_c4s1_001051_00.jpg"],
            # junk is no answer, so its camera does not help
            "bounding_box_test": ["0001_c4s1_000301_01.jpg", "-1_c2s1_000301_01.jpg"],
        },
    )
    with pytest.raises(InputError, match=r"camera 4.*there is nothing to evaluate"):
        read(tmp_path, tmp_path)


def test_junk_among_the_training_images_is_refused(tmp_path, make_folder):
    folder = make_folder(tmp_path / OFFICIAL)
    (folder / "bounding_box_train" / "0007_c3s3_000551_01.jpg").rename(
        folder / "bounding_box_train" / "-1_c3s3_000551_01.jpg"
    )
    with pytest.raises(InputError, match=r"-1_c3s3_000551_01\.jpg"):
        read(tmp_path, tmp_path)


def test_counts_leave_junk_and_distractors_out_of_the_identities():
    images = [ImageRecord("a", -1, 1), ImageRecord("b", 0, 2), ImageRecord("c", 5, 2), ImageRecord("d", 5, 3)]
    assert count_part(images) == PartCounts(images=4, identities=1, cameras=3, junk=1, distractors=1)


def test_the_banner_lists_each_part(tmp_path, make_folder):
    rows = split_table(read_folder(LAYOUT, make_folder(tmp_path / OFFICIAL))).splitlines()
    cells = [[cell.strip() for cell in row.split("|")] for row in rows[1:]]
    assert cells[0] == ["subset", "# ids", "# images", "# cameras"]
    assert cells[1] == ["train", "2", "3", "3"]
    assert cells[2] == ["query", "2", "2", "2"]
    assert cells[3][:3] == ["gallery", "2", "5"]
    assert cells[3][3] == "3   (1 junk, 1 distractors)"
