"""An index follows its folder: what is new, changed, moved or gone, and what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.search.gallery import Gallery, UpdateSummary, list_crops, read_snapshot, update_index

PATTERN = "{identity}/c{camera}_{time}"
Vector = Callable[[bytes], np.ndarray]


def index(path: Path, crops: Path, embed: Any, pattern: str = PATTERN, **options: Any) -> UpdateSummary:
    with Gallery.open_or_create(path, model_id="m", dim=16, shard_size=5) as gallery:
        return update_index(gallery, list_crops(crops, pattern), embed, progress=False, **options)


def check(path: Path, crops: Path, vector: Vector) -> None:
    """Every image of the folder once, each with the features of its own bytes; every row right by its checksum."""
    snapshot = read_snapshot(path)
    files = sorted(p.relative_to(crops).as_posix() for p in crops.rglob("*.jpg"))
    assert [crop.path for crop in snapshot.crops] == files
    expected = np.stack([vector((crops / name).read_bytes()) for name in files])
    np.testing.assert_array_equal(snapshot.features(), expected)
    with Gallery.open(path) as gallery:
        assert gallery.find_corrupt() == []


def test_a_folder_becomes_an_index(crops: Path, tmp_path: Path, embed: Any, make_vector: Vector) -> None:
    done = index(tmp_path / "i", crops, embed)
    assert (done.added, done.embedded, done.unchanged) == (12, 12, 0)
    check(tmp_path / "i", crops, make_vector)
    labels = {crop.path: crop.labels for crop in read_snapshot(tmp_path / "i").crops}["0002/c1_200.jpg"]
    assert (labels.identity, labels.camera, labels.time) == ("2", "1", "200")
    # Shards of five rows, and the full ones are plain matrices.
    shards = sorted((tmp_path / "i" / "features").iterdir())
    assert [shard.name for shard in shards] == [f"000000-{n:06d}.npy" for n in range(3)]
    assert np.load(shards[1]).shape == (5, 16)


def test_only_what_is_new_or_changed_is_embedded(crops: Path, tmp_path: Path, embed: Any, make_vector: Vector) -> None:
    index(tmp_path / "i", crops, embed)
    embed.seen.clear()
    assert index(tmp_path / "i", crops, embed).unchanged == 12 and embed.seen == []
    (crops / "0001" / "c1_100.jpg").write_bytes(b"another")
    (crops / "0004").mkdir()
    (crops / "0004" / "c1_100.jpg").write_bytes(b"4 1 100")
    (crops / "0003" / "c2_200.jpg").unlink()
    done = index(tmp_path / "i", crops, embed)
    assert (done.added, done.changed, done.deleted, done.unchanged, done.embedded) == (1, 1, 1, 10, 2)
    assert [Path(path).relative_to(crops).as_posix() for path in embed.seen] == ["0001/c1_100.jpg", "0004/c1_100.jpg"]
    check(tmp_path / "i", crops, make_vector)


def test_an_unchanged_file_is_not_opened(crops: Path, tmp_path: Path, embed: Any) -> None:
    index(tmp_path / "i", crops, embed)
    path = crops / "0001" / "c1_100.jpg"
    before = path.stat()
    path.write_bytes(b"2 2 999")  # of the same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index(tmp_path / "i", crops, embed).unchanged == 12
    assert index(tmp_path / "i", crops, embed, reread=True).embedded == 1


def test_known_content_under_another_name_is_not_embedded(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector
) -> None:
    (crops / "0001" / "twin.jpg").write_bytes((crops / "0001" / "c1_100.jpg").read_bytes())
    assert index(tmp_path / "i", crops, embed, "").embedded == 12
    embed.seen.clear()
    crops.joinpath("0001").rename(crops / "0009")
    done = index(tmp_path / "i", crops, embed, "")
    assert (done.added, done.deleted, done.embedded, embed.seen) == (5, 5, 0, [])
    check(tmp_path / "i", crops, make_vector)


def test_another_pattern_relabels_without_reading(crops: Path, tmp_path: Path, embed: Any) -> None:
    index(tmp_path / "i", crops, embed, "")
    (crops / "0001" / "odd.jpg").write_bytes(b"odd")
    embed.seen.clear()
    done = index(tmp_path / "i", crops, embed)
    assert (done.relabeled, done.added, len(embed.seen), done.unmatched) == (12, 1, 1, ("0001/odd.jpg",))
    labels = {crop.path: crop.labels.camera for crop in read_snapshot(tmp_path / "i").crops}
    assert labels["0001/odd.jpg"] == "" and labels["0003/c2_100.jpg"] == "2"


@pytest.mark.parametrize("content, why", [(b"broken", "no whole image"), (b"zero", "its feature is zero")])
def test_broken_images_are_named_and_left_out(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector, content: bytes, why: str
) -> None:
    bad = crops / "0002" / "c1_100.jpg"
    index(tmp_path / "i", crops, embed)
    for path in (bad, crops / "0002" / "same.jpg"):
        path.write_bytes(content)
    done = index(tmp_path / "i", crops, embed)
    assert done.unreadable == {"0002/c1_100.jpg": why, "0002/same.jpg": why}
    # What the path held before is not found under it any more.
    assert "0002/c1_100.jpg" not in [crop.path for crop in read_snapshot(tmp_path / "i").crops]
    bad.write_bytes(b"mended")
    (crops / "0002" / "same.jpg").unlink()
    assert index(tmp_path / "i", crops, embed).unreadable == {}
    check(tmp_path / "i", crops, make_vector)


def test_a_broken_image_can_be_an_error_that_loses_nothing(crops: Path, tmp_path: Path, embed: Any) -> None:
    (crops / "0002" / "c1_100.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"0002/c1_100.jpg: no whole image; use --broken skip"):
        index(tmp_path / "i", crops, embed, skip_unreadable=False)
    assert index(tmp_path / "i", crops, embed).added == 11


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_time(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector
) -> None:
    changing = crops / "0002" / "c1_100.jpg"

    def meddling(paths: Sequence[str]) -> np.ndarray:
        rows = embed(paths)
        changing.write_bytes(b"written while it was embedded")
        return rows

    done = index(tmp_path / "i", crops, meddling)
    assert done.modified == ["0002/c1_100.jpg"] and done.added == 11
    assert index(tmp_path / "i", crops, embed).added == 1
    check(tmp_path / "i", crops, make_vector)


def test_a_stop_keeps_what_is_embedded(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid.search.gallery.update._BATCH_SIZE", 2)
    calls = 0

    def stopped(paths: Sequence[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return embed(paths)

    with pytest.raises(KeyboardInterrupt):
        index(tmp_path / "i", crops, stopped)
    assert len(read_snapshot(tmp_path / "i").crops) == 6
    done = index(tmp_path / "i", crops, embed)
    assert (done.unchanged, done.embedded) == (6, 6)
    check(tmp_path / "i", crops, make_vector)


def test_an_empty_or_missing_folder_is_told_and_forgets_nothing(crops: Path, tmp_path: Path, embed: Any) -> None:
    index(tmp_path / "i", crops, embed)
    crops.rename(tmp_path / "away")
    with pytest.raises(InputError, match="no such folder of crops"):
        list_crops(crops)
    crops.mkdir()
    with pytest.raises(InputError, match="no image .* in this folder"):
        list_crops(crops)
    with pytest.raises(InputError, match="a file, not a folder of crops"):
        list_crops(tmp_path / "away" / "0001" / "c1_100.jpg")
    assert len(read_snapshot(tmp_path / "i").crops) == 12


def test_a_name_that_is_no_text_is_told(crops: Path, tmp_path: Path, embed: Any) -> None:
    try:
        (crops / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("the disk takes no such names")
    assert list(index(tmp_path / "i", crops, embed).unreadable.values()) == ["the name is not valid UTF-8"]
