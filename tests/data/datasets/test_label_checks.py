"""Doubtful labels: counted, shown in the table, and refused above a share; images do not find themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from reid.data.datasets.folder import read_tree
from reid.data.datasets.label_checks import check_labels, find_copies, label_counts
from reid.data.datasets.layout import split_table
from reid.errors import InputError
from reid.ranking import evaluate
from reid.records import Features, ImageRecord, Split


def images(*labels: tuple[int, int]) -> tuple[ImageRecord, ...]:
    return tuple(ImageRecord(f"{i}.jpg", *label) for i, label in enumerate(labels))


# Queries 2 and 3 have no match by another camera; identities 1 and 2 of 1, 2, 3, 6 are trained on.
DOUBTFUL = Split(
    "drawn",
    train=images((1, 1), (2, 1), (9, 1)),
    query=images((3, 1), (3, 3), (6, 1), (5, 1)),
    gallery=images((-1, 2), (0, 2), (1, 1), (2, 1), (3, 2), (6, 1)),
)


def write(root: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_doubtful_labels_are_counted_and_shown() -> None:
    counts = {"queries_without_match": 2, "identities_in_train_and_gallery": 2, "queries_in_gallery": 0}
    assert label_counts(DOUBTFUL) == counts
    assert split_table(DOUBTFUL).splitlines()[5:] == [
        "2 of 4 queries have no match in the gallery from another camera",
        "2 of 4 identities of the gallery are trained on",
    ]


def test_a_larger_share_than_tolerated_is_refused() -> None:
    check_labels(DOUBTFUL, 0.5)
    with pytest.raises(
        InputError, match=r"^drawn: 2 of 4 queries have no match .*DATASETS\.TOLERANCE 1\.0 accepts it$"
    ):
        check_labels(DOUBTFUL, 0.49)
    matched = dataclasses.replace(DOUBTFUL, query=DOUBTFUL.query[:2])
    with pytest.raises(InputError, match="2 of 4 identities of the gallery are trained on; is another folder"):
        check_labels(matched, 0.49)


# Anna's first query is in the gallery twice, her second one once; Bo's has the content of an image of another person.
COPIES = {
    **{f"train/{person}/1.jpg": "train" for person in ("zoe", "yan")},
    **{"query/anna/1.jpg": "same", "query/anna/2.jpg": "else", "query/anna/3.jpg": "mine", "query/bo/1.jpg": "what"},
    **{"gallery/anna/1.jpg": "same", "gallery/anna/2.jpg": "same", "gallery/anna/3.jpg": "else"},
    **{"gallery/anna/4.jpg": "more", "gallery/bo/1.jpg": "diff", "gallery/yi/1.jpg": "what"},
}


def test_without_cameras_a_querys_own_image_leaves_its_ranking_and_no_other(tmp_path: Path) -> None:
    split = read_tree(write(tmp_path, COPIES), cache=tmp_path, pattern="{identity}/*")
    assert label_counts(split)["queries_in_gallery"] == 2
    table = split_table(split).splitlines()
    assert table[-1] == "2 of 4 queries are also gallery files: left out of their own ranking"
    assert all("unknown" in row for row in table[2:5])

    left_out = [
        [
            Path(image.path).relative_to(tmp_path / "gallery").as_posix()
            for image in split.gallery
            if (image.identity, image.camera) == (query.identity, query.camera)
        ]
        for query in split.query
    ]
    assert left_out == [["anna/1.jpg", "anna/2.jpg"], ["anna/3.jpg"], [], []]


def test_an_image_does_not_find_itself(tmp_path: Path) -> None:
    contents = {f"{part}/{name}/1.jpg": name for part in ("query", "gallery") for name in ("a", "b")}
    contents |= {"gallery/a/2.jpg": "y", "gallery/b/2.jpg": "z", "train/c/1.jpg": "c"}
    split = read_tree(write(tmp_path, contents), cache=tmp_path, pattern="{identity}/*")

    def features(part: tuple[ImageRecord, ...], camera: int = 0) -> Features:
        values = np.array([[float(ord(Path(image.path).read_text()))] for image in part])
        cameras = np.array([camera or image.camera for image in part])
        return Features(values, np.array([image.identity for image in part]), cameras)

    # a finds b before y, and b finds a before z; their own copies, at distance 0, would come first.
    assert evaluate(features(split.query, 1), features(split.gallery, 2)).rank1 == 1
    assert evaluate(features(split.query), features(split.gallery)).rank1 == 0


def test_with_cameras_numbers_stay_and_a_copy_of_another_camera_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = {f"{name[:-4]}_{1 + name.startswith('gallery')}.jpg": text for name, text in COPIES.items()}
    split = read_tree(write(tmp_path, contents), cache=tmp_path, pattern="{identity}/*_{camera}")
    assert {image.camera for image in split.query} == {1} and label_counts(split)["queries_in_gallery"] == 0
    check_labels(split, 0.5)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "2 queries are in the gallery under another camera, which counts as a match; the first is" in line


def test_files_without_content_are_no_copies() -> None:
    assert find_copies(DOUBTFUL.query, DOUBTFUL.gallery) == {}


def test_an_image_number_taken_for_the_camera_is_questioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, {f"{person:04d}{image:03d}.png": "" for person in range(6) for image in range(1, 5)})
    read_tree(root, cache=tmp_path, pattern="{identity:4}{camera:3}")
    assert "24 of 24 persons under a camera have one image: is {camera} in" in caplog.text
    caplog.clear()
    split = read_tree(root, cache=tmp_path, pattern="{identity:4}{camera:3/2}")
    assert {image.camera for image in split.query} == {1, 2} and not caplog.records
