"""Updates of an index: new, changed, moved, deleted and unreadable images."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from traced import traced

from reid.errors import InputError
from reid.search.gallery import (
    Crop,
    CropListing,
    Gallery,
    Labels,
    UpdateSummary,
    is_index,
    list_crops,
    read_snapshot,
    update,
    update_index,
)

PATTERN = "{identity}/c{camera}_{time}"
Vector = Callable[[bytes], np.ndarray]


def index(path: Path, crops: Path, embed: Any, pattern: str = PATTERN, **options: Any) -> UpdateSummary:
    gallery = Gallery.open(path) if is_index(path) else Gallery.create(path, model_id="m", dim=16, shard_size=5)
    with gallery:
        return update_index(gallery, list_crops(crops, pattern), embed, progress=False, **options)


def check(path: Path, crops: Path, vector: Vector) -> None:
    """Check that every image is indexed once, with the features of its content, and that all checksums match."""
    snapshot = read_snapshot(path)
    files = sorted(p.relative_to(crops).as_posix() for p in crops.rglob("*.jpg"))
    assert [crop.path for crop in snapshot.crops] == files
    expected = np.stack([vector((crops / name).read_bytes()) for name in files])
    np.testing.assert_array_equal(snapshot.read_rows(snapshot.rows), expected)
    with Gallery.open(path) as gallery:
        assert gallery.find_corrupt() == []


def test_a_folder_becomes_an_index(crops: Path, tmp_path: Path, embed: Any, make_vector: Vector) -> None:
    summary = index(tmp_path / "i", crops, embed)
    assert (summary.added, summary.embedded, summary.unchanged) == (12, 12, 0)
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
    summary = index(tmp_path / "i", crops, embed)
    assert (summary.added, summary.changed, summary.deleted, summary.unchanged, summary.embedded) == (1, 1, 1, 10, 2)
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
    summary = index(tmp_path / "i", crops, embed, "")
    assert (summary.added, summary.deleted, summary.embedded, embed.seen) == (5, 5, 0, [])
    check(tmp_path / "i", crops, make_vector)


def test_another_pattern_relabels_without_reading(crops: Path, tmp_path: Path, embed: Any) -> None:
    index(tmp_path / "i", crops, embed, "")
    (crops / "0001" / "odd.jpg").write_bytes(b"odd")
    embed.seen.clear()
    summary = index(tmp_path / "i", crops, embed)
    assert (summary.relabeled, summary.added, len(embed.seen), summary.unmatched) == (12, 1, 1, ("0001/odd.jpg",))
    labels = {crop.path: crop.labels.camera for crop in read_snapshot(tmp_path / "i").crops}
    assert labels["0001/odd.jpg"] == "" and labels["0003/c2_100.jpg"] == "2"


@pytest.mark.parametrize("content, reason", [(b"broken", "no whole image"), (b"zero", "its feature is all zero")])
def test_unreadable_images_are_reported_and_skipped(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector, content: bytes, reason: str
) -> None:
    bad = crops / "0002" / "c1_100.jpg"
    index(tmp_path / "i", crops, embed)
    for path in (bad, crops / "0002" / "same.jpg"):
        path.write_bytes(content)
    summary = index(tmp_path / "i", crops, embed)
    assert summary.unreadable == {"0002/c1_100.jpg": reason, "0002/same.jpg": reason}
    # The former content of the path can no longer be found.
    assert "0002/c1_100.jpg" not in [crop.path for crop in read_snapshot(tmp_path / "i").crops]
    bad.write_bytes(b"mended")
    (crops / "0002" / "same.jpg").unlink()
    assert index(tmp_path / "i", crops, embed).unreadable == {}
    check(tmp_path / "i", crops, make_vector)


def test_an_unreadable_image_as_an_error_keeps_the_others(crops: Path, tmp_path: Path, embed: Any) -> None:
    (crops / "0002" / "c1_100.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"0002/c1_100.jpg: no whole image; use --broken skip"):
        index(tmp_path / "i", crops, embed, skip_unreadable=False)
    assert index(tmp_path / "i", crops, embed).added == 11


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_time(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector
) -> None:
    changing = crops / "0002" / "c1_100.jpg"

    def embed_and_modify(paths: Sequence[str]) -> np.ndarray:
        rows = embed(paths)
        changing.write_bytes(b"written while it was embedded")
        return rows

    summary = index(tmp_path / "i", crops, embed_and_modify)
    assert summary.modified == ["0002/c1_100.jpg"] and summary.added == 11
    assert index(tmp_path / "i", crops, embed).added == 1
    check(tmp_path / "i", crops, make_vector)


def test_an_interrupt_keeps_what_is_embedded(
    crops: Path, tmp_path: Path, embed: Any, make_vector: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid.search.gallery.update._BATCH_SIZE", 2)
    calls = 0

    def interrupted(paths: Sequence[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return embed(paths)

    with pytest.raises(KeyboardInterrupt):
        index(tmp_path / "i", crops, interrupted)
    assert len(read_snapshot(tmp_path / "i").crops) == 6
    summary = index(tmp_path / "i", crops, embed)
    assert (summary.unchanged, summary.embedded) == (6, 6)
    check(tmp_path / "i", crops, make_vector)


def test_an_empty_or_missing_folder_keeps_the_index(crops: Path, tmp_path: Path, embed: Any) -> None:
    index(tmp_path / "i", crops, embed)
    crops.rename(tmp_path / "away")
    with pytest.raises(InputError, match="no such folder of crops"):
        list_crops(crops)
    crops.mkdir()
    with pytest.raises(InputError, match=r"no image .* in this folder"):
        list_crops(crops)
    with pytest.raises(InputError, match="a file, not a folder of crops"):
        list_crops(tmp_path / "away" / "0001" / "c1_100.jpg")
    assert len(read_snapshot(tmp_path / "i").crops) == 12


def test_a_name_that_is_not_utf8(crops: Path, tmp_path: Path, embed: Any) -> None:
    try:
        (crops / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("the disk takes no such names")
    assert list(index(tmp_path / "i", crops, embed).unreadable.values()) == ["the name is not valid UTF-8"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ENFILE, errno.ESTALE])
@pytest.mark.parametrize("moment", ["reading", "embedding", "listing"])
def test_an_error_of_the_machine_drops_no_image(
    crops: Path,
    tmp_path: Path,
    embed: Any,
    make_vector: Vector,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    moment: str,
) -> None:
    index(tmp_path / "i", crops, embed)
    embed.seen.clear()
    (crops / "0002" / "c1_100.jpg").write_bytes(b"another")

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            if "0002" in str(path):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *rest, **options)

        return call

    with monkeypatch.context() as patched, pytest.raises(OSError) as raised:
        if moment == "listing":
            patched.setattr("reid.search.gallery.crops.os.stat", failing(os.stat))
        elif moment == "reading":
            patched.setattr(update, "read_file", failing(update.read_file))
        index(tmp_path / "i", crops, failing(embed) if moment == "embedding" else embed, reread=True)
    assert raised.value.errno == number and "0002" in str(raised.value.filename)
    assert len(read_snapshot(tmp_path / "i").crops) == 12
    assert index(tmp_path / "i", crops, embed, reread=True).unreadable == {}
    check(tmp_path / "i", crops, make_vector)


def test_an_image_without_permission_stays(
    crops: Path, tmp_path: Path, embed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(tmp_path / "i", crops, embed)

    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(update, "read_file", denied)
        assert len(index(tmp_path / "i", crops, embed, reread=True).unreadable) == 12
    assert len(read_snapshot(tmp_path / "i").crops) == 12


def test_a_folder_that_vanishes_or_is_too_deep_stops_nothing(
    crops: Path, tmp_path: Path, embed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(tmp_path / "i", crops, embed)
    before = Path.cwd()
    try:
        os.chdir(crops / "0002")
        for _ in range(25):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        Path("deep.jpg").write_bytes(b"deep")
    finally:
        os.chdir(before)
    real = os.scandir

    def vanishing(path: Any) -> Any:
        if Path(path).name == "0003":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return real(path)

    monkeypatch.setattr("reid.io.image_files.os.scandir", vanishing)
    listing = list_crops(crops)
    assert len(listing.crops) == 8 and len(listing.too_deep) == 1
    summary = index(tmp_path / "i", crops, embed)
    assert summary.deleted == 4 and summary.too_deep == listing.too_deep


def test_a_time_that_sqlite_cannot_store(crops: Path, tmp_path: Path, embed: Any) -> None:
    path = crops / "0001" / "c1_100.jpg"
    os.utime(path, (2**34, 2**34))
    if path.stat().st_mtime < 2**34:
        pytest.skip("the file system stores no such times")
    assert index(tmp_path / "i", crops, embed).added == 12
    assert index(tmp_path / "i", crops, embed).unchanged == 12


def test_a_comparison_holds_no_image_of_the_index() -> None:
    """So that an index in Milvus may be larger than memory: per image, only what refers to the listing."""
    count = 5000

    def images() -> Iterator[tuple[Crop, bytes, bool]]:
        for number in range(count):
            labels = Labels(str(number // 50), str(number % 6), str(number))
            yield Crop(f"{number // 50:04d}/c{number % 6}_{number:06d}.jpg", 3000 + number, 7, labels), b"", False

    listing = CropListing(Path("crops"), tuple(crop for crop, _, _ in images()))
    stored = SimpleNamespace(images=images, digests=lambda: pytest.fail("nothing is to be embedded"))
    summary, peak = traced(
        lambda: update_index(cast(Gallery, stored), listing, lambda paths: np.empty(0), progress=False)
    )
    assert summary.unchanged == count and peak < 200 * count
