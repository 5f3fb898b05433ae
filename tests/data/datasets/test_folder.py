"""Any tree of images with one pattern for identity and camera."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from reid.data import DATASETS, split_table
from reid.errors import InputError
from reid.records import ImageRecord, Split


def read(root: Path, pattern: str = "{identity}/cam{camera}_*", *, strict: bool = True, **options: float) -> Split:
    return DATASETS["folder"](root, strict=strict, cache=root, pattern=pattern, **options)


def touch(root: Path, paths: Iterable[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def labels_of(root: Path, images: tuple[ImageRecord, ...]) -> list[tuple[str, int, int]]:
    return [(Path(image.path).relative_to(root).as_posix(), image.identity, image.camera) for image in images]


PARTS = (
    *("train/anna/cam01_1.jpg", "train/anna/cam2_1.png", "train/Bo Ä <b>/cam1_1.JPEG"),
    *("query/9/cam1_1.jpg", "query/010/cam2_1.jpg"),
    *("gallery/9/cam2_1.jpg", "gallery/10/cam1_1.jpg", "gallery/zoë/cam3_1.jpg"),
)


def test_parts_are_read_and_strings_are_numbered(tmp_path: Path) -> None:
    root = touch(tmp_path / "shop", (*PARTS, "notes.txt", "train/anna/.hidden.jpg", "train/.cache/x/cam1_1.jpg"))
    split = read(root)
    assert split.name == "folder:shop"
    # Numbers first and as such, 9 before 010; then texts as sorted: Bo, anna, zoë.
    assert labels_of(root, split.train) == [
        ("train/Bo Ä <b>/cam1_1.JPEG", 3, 1),
        ("train/anna/cam01_1.jpg", 4, 1),
        ("train/anna/cam2_1.png", 4, 2),
    ]
    assert labels_of(root, split.query) == [("query/010/cam2_1.jpg", 2, 2), ("query/9/cam1_1.jpg", 1, 1)]
    assert labels_of(root, split.gallery) == [
        ("gallery/10/cam1_1.jpg", 2, 1),
        ("gallery/9/cam2_1.jpg", 1, 2),
        ("gallery/zoë/cam3_1.jpg", 5, 3),
    ]
    assert split_table(split).splitlines()[0] == "folder:shop"


def test_the_folders_of_market1501_are_parts_too(tmp_path: Path) -> None:
    names = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    root = touch(tmp_path, (f"{names[path.split('/')[0]]}/{path.partition('/')[2]}" for path in PARTS))
    assert [len(part) for part in (read(root).train, read(root).query, read(root).gallery)] == [3, 2, 3]


def test_parts_are_found_in_any_case_and_in_a_folder_of_their_own(tmp_path: Path) -> None:
    plain = read(touch(tmp_path / "plain", PARTS))
    capital = [path.replace("train/", "Train/").replace("query/", "QUERY/").replace("gal", "Gal") for path in PARTS]
    for root in (touch(tmp_path / "capital", capital), touch(tmp_path / "own" / "own", capital).parent):
        split = read(root)
        for part in ("train", "query", "gallery"):
            assert [(image.identity, image.camera) for image in getattr(split, part)] == [
                (image.identity, image.camera) for image in getattr(plain, part)
            ]


def test_parts_that_are_ambiguous_or_misspelled_are_named(tmp_path: Path) -> None:
    both = touch(tmp_path / "both", (*PARTS, "bounding_box_test/9/cam2_1.jpg"))
    with pytest.raises(
        InputError, match="contains bounding_box_test and gallery, of which only one can be the gallery"
    ):
        read(both)
    misspelled = [path.replace("train/", "tarin/").replace("query/", "queue/") for path in PARTS]
    with pytest.raises(InputError, match=r"contain train .*; is tarin the train\?; is queue the query\?"):
        read(touch(tmp_path / "one", misspelled), "**/{identity}/cam{camera}_*")
    misspelled = [path.replace("gallery/", "test/") for path in misspelled]
    with pytest.raises(InputError, match=r"contains tarin and queue, so it must contain"):
        read(touch(tmp_path / "none", misspelled), "**/{identity}/cam{camera}_*")


MARKET = ("-1/cam1_1.jpg", "0000/cam1_1.jpg", "0000/cam2_2.jpg")


def test_junk_and_distractors_of_market1501_are_no_persons(tmp_path: Path) -> None:
    root = touch(tmp_path / "parts", (*PARTS, *(f"gallery/{path}" for path in MARKET)))
    assert [image.identity for image in read(root).gallery if image.identity < 1] == [-1, 0, 0]
    split = read(touch(tree(tmp_path / "tree"), MARKET), test=1.0)
    assert [image.identity for image in split.gallery][-3:] == [-1, 0, 0]
    assert all(image.identity > 0 for image in (*split.train, *split.query, *split.gallery[:-3]))
    with pytest.raises(InputError, match=r"train/-1/cam1_1\.jpg: identity -1 is junk, which only the gallery may"):
        read(touch(root, [f"train/{MARKET[0]}"]))


def test_a_person_may_be_called_0(tmp_path: Path) -> None:
    split = read(touch(tmp_path, [f"{person}/cam{camera}_1.jpg" for person in range(3) for camera in (1, 2)]))
    assert all(image.identity > 0 for image in (*split.train, *split.query, *split.gallery))


def tree(root: Path) -> Path:
    """20 persons with 3 images of each of 2 cameras, 5 persons of one camera."""
    both = (f"p{person}/cam{camera}_{image}.jpg" for person in range(20) for camera in "12" for image in range(3))
    return touch(root, [*both, *(f"q{person}/cam1_{image}.jpg" for person in range(5) for image in range(2))])


def test_without_parts_a_fraction_of_the_identities_is_tested(tmp_path: Path) -> None:
    split = read(tree(tmp_path), test=0.25)
    assert [len(part) for part in (split.train, split.query, split.gallery)] == [15 * 6 + 5 * 2, 5 * 2, 5 * 4]
    asked = Counter((image.identity, image.camera) for image in split.query)
    assert set(asked.values()) == {1} and len(asked) == 10
    everything = [image.path for image in (*split.train, *split.query, *split.gallery)]
    assert len(set(everything)) == len(everything) == 130
    assert {image.identity for image in split.query} == {image.identity for image in split.gallery}
    assert not {image.identity for image in split.train} & {image.identity for image in split.gallery}


def test_the_split_depends_on_the_seed_and_not_on_the_root(tmp_path: Path) -> None:
    one, other = (tree(tmp_path / name) for name in "ab")
    assert labels_of(one, read(one).query) == labels_of(other, read(other).query)
    assert labels_of(one, read(one).query) != labels_of(one, read(one, seed=1).query)


def test_without_cameras_every_other_image_is_a_match(tmp_path: Path) -> None:
    root = touch(tmp_path, ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg"])
    split = read(root, "{identity}/*", test=1.0)
    assert [len(part) for part in (split.train, split.query, split.gallery)] == [1, 2, 3]
    assert {image.camera for image in (*split.train, *split.query)} == {1}
    assert {image.camera for image in split.gallery} == {2}


def test_a_wrong_pattern_is_reported_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no \{identity\}"):
        read(tmp_path / "missing", "cam{camera}_*")


def test_images_that_do_not_match_are_listed_or_ignored(tmp_path: Path) -> None:
    root = touch(tmp_path, (*PARTS, *(f"train/x{n}.jpg" for n in range(4)), "train/line\nbreak.jpg"))
    with pytest.raises(InputError) as caught:
        read(root)
    message = str(caught.value)
    assert (
        "5 of 8 images do not match DATASETS.PATTERN '{identity}/cam{camera}_*': 'line\\nbreak.jpg', x0.jpg" in message
    )
    assert message.startswith(str(root / "train")) and "DATASETS.STRICT False" in message and "\n" not in message
    assert len(read(root, strict=False).train) == 3


def test_a_pattern_that_matches_nothing_is_reported_without_strict_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 of 3 images do not match DATASETS\.PATTERN '{identity}_c{camera}': Bo"):
        read(touch(tmp_path, PARTS), "{identity}_c{camera}", strict=False)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    root = touch(tmp_path, PARTS)
    try:
        Path(os.fsdecode(bytes(root / "train" / "anna") + b"/cam1_\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(InputError, match=r"1 of 4 images .*cam1_\\udcff") as caught:
        read(root)
    str(caught.value).encode()


def test_errors_of_the_tree_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder of images; .*DATASETS\.FOLDER_ROOT"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match="contain an image"):
        read(touch(tmp_path / "empty", ["anna/readme.txt"]))
    with pytest.raises(
        InputError, match="contains train and query, so it must contain gallery or bounding_box_test, too"
    ):
        read(touch(tmp_path / "two", [path for path in PARTS if not path.startswith("gallery")]))
    with pytest.raises(InputError, match=r"the identity anna is in both train and query; they must be disjoint"):
        read(touch(tmp_path / "shared", (*PARTS, "query/anna/cam1_9.jpg")))
    with pytest.raises(InputError, match="there is nothing to evaluate"):
        read(touch(tmp_path / "one", [path for path in PARTS if "cam1" in path or path.startswith("train")]))


def test_no_eligible_identity_is_reported(tmp_path: Path) -> None:
    root = touch(tmp_path, ["a/cam1_1.jpg", "a/cam1_2.jpg", "b/cam1_1.jpg"])
    with pytest.raises(
        InputError,
        match=r"requires an identity with images from two cameras .*found 2 identities; without \{camera\} in",
    ):
        read(root)
    assert len(read(root, "{identity}/*").query) == 1
    with pytest.raises(
        InputError, match="an identity with two images and another identity for training; found 1 identities"
    ):
        read(touch(tmp_path / "alone", ["c/1.jpg", "c/2.jpg"]), "{identity}/*")


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "far", ["anna/cam1_1.jpg", "anna/cam2_1.jpg", "bo/cam1_1.jpg", "bo/cam2_1.jpg"])
    root = tmp_path / "root"
    root.mkdir()
    for name in ("anna", "bo"):
        (root / name).symlink_to(tmp_path / "far" / name, target_is_directory=True)
    (root / "zz").symlink_to(root, target_is_directory=True)
    split = read(root)
    assert len(split.train) + len(split.query) + len(split.gallery) == 4
