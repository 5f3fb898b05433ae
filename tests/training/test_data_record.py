from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reid.errors import InputError
from reid.records import ImageRecord, Split
from reid.training.data_record import data_changes, read_record, record_data, to_text
from reid.training.run_folder import RunFolder

LABELS = {"train": (1, 1, 2, 2), "query": (3,), "gallery": (3, 3, 0)}


def make_split(root: Path) -> Split:
    """Files whose content is their name, in one folder per list, and in one per person where there is training."""
    parts: dict[str, tuple[ImageRecord, ...]] = {}
    for part, identities in LABELS.items():
        images = []
        for number, identity in enumerate(identities):
            path = root / part / str(identity) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{part} {number}")
            images.append(ImageRecord(str(path), identity, 1 + number % 2))
        parts[part] = tuple(images)
    return Split("small", **parts)


def with_train(split: Split, *images: ImageRecord) -> Split:
    return dataclasses.replace(split, train=images)


def test_a_dataset_that_moves_is_the_same(tmp_path: Path) -> None:
    before = record_data(make_split(tmp_path / "a"))
    assert [row[:3] for row in before["train"]] == [
        ["1/0.jpg", 1, 1], ["1/1.jpg", 1, 2], ["2/2.jpg", 2, 1], ["2/3.jpg", 2, 2],
    ]  # fmt: skip
    assert data_changes(before, record_data(make_split(tmp_path / "elsewhere" / "b"))) == ()


def test_what_differs_is_named(tmp_path: Path) -> None:
    split = make_split(tmp_path)
    before = record_data(split)
    a, b, c, d = split.train

    def changed(*images: ImageRecord) -> tuple[str, ...]:
        return data_changes(before, record_data(with_train(split, *images)))

    extra = tmp_path / "train" / "2" / "9.jpg"
    extra.write_text("extra")
    images = "images of 'train' are"
    assert changed(a, b, c, d, ImageRecord(str(extra), 2, 1)) == (f"1 of 5 {images} new, the first: 2/9.jpg",)
    assert changed(a, c) == (f"2 of 2 {images} missing, the first: 1/1.jpg",)
    assert changed(a, dataclasses.replace(b, identity=2), c, d) == (
        f"1 of 4 {images} of another identity, the first: 1/1.jpg",
    )
    assert changed(a, b, c, dataclasses.replace(d, camera=1)) == (
        f"1 of 4 {images} of another camera, the first: 2/3.jpg",
    )
    assert changed(b, a, c, d) == ("the images of 'train' come in another order",)
    one, two = Path(a.path), Path(c.path)
    one.write_text("train 2")
    two.write_text("train 0")  # swapped: names, sizes and dates stay
    assert changed(a, b, c, d) == (f"2 of 4 {images} of other content, the first: 1/0.jpg",)


def test_datasets_in_folders_of_their_own_may_move_apart(tmp_path: Path) -> None:
    def combined(first: Path, second: Path) -> Split:
        a, b = make_split(first), make_split(second)
        moved = tuple(dataclasses.replace(image, identity=image.identity + 10) for image in b.train)
        return dataclasses.replace(a, train=(*a.train, *moved), sources=(("one", 1), ("two", 11)))

    before = record_data(combined(tmp_path / "a", tmp_path / "b"))
    assert before["train"][0][0] == "one: 1/0.jpg" and before["train"][-1][0] == "two: 2/3.jpg"
    assert data_changes(before, record_data(combined(tmp_path / "x" / "y", tmp_path / "z-0123"))) == ()


@pytest.mark.parametrize("text", ["", "\xff", "[]", "{}", '{"train": [], "query": [], "gallery": [["a", 1, "x", 2]]}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"data\.json: not a list of images.*--force"):
        read_record(tmp_path / "data.json")


def opened(path: Path, data: Any, **options: bool) -> tuple[str, ...]:
    folder = RunFolder(path)
    try:
        return folder.open("SEED: 0\n", resume=(path / "config.yaml").exists(), data=data, **options)
    finally:
        folder.close()


def test_a_run_goes_on_with_its_images_only(tmp_path: Path) -> None:
    split, run = make_split(tmp_path / "data"), tmp_path / "run"
    record = record_data(split)
    assert opened(run, record) == ()
    assert read_record(run / "data.json") == record == json.loads(to_text(record))
    assert opened(run, record) == ()
    other = record_data(with_train(split, *split.train[::2]))
    for _ in range(2):  # what was refused is not recorded
        with pytest.raises(InputError, match=r"2 of 2 images of 'train' are missing, the first: 1/1\.jpg; restore it"):
            opened(run, other)
    assert len(opened(run, other, force=True)) == 1
    assert opened(run, other) == ()


def test_every_changed_bit_of_the_record_is_noticed(tmp_path: Path) -> None:
    record, run = record_data(make_split(tmp_path / "data")), tmp_path / "run"
    opened(run, record)
    good = (run / "data.json").read_bytes()
    for bit in range(0, 8 * len(good), 7):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        (run / "data.json").write_bytes(data)
        try:
            assert read_record(run / "data.json") == record  # a blank became a line break
        except (InputError, AssertionError):
            with pytest.raises(InputError):
                opened(run, record)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    record, run = record_data(make_split(tmp_path / "data")), tmp_path / "run"
    opened(run, record)
    (run / "data.json").unlink()
    assert "data.json was missing" in opened(run, record)[0]
    assert opened(run, record) == ()
    shutil.rmtree(run)
    opened(run, None)
    assert not (run / "data.json").exists()
