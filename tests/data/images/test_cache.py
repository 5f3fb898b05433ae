"""Images are decoded once and exactly, and the cache file is never stale or incomplete."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid.data.images import cache as cache_module
from reid.data.images.cache import decode_images
from reid.errors import InputError
from reid.io.atomic import atomic_file


@pytest.fixture
def paths(tmp_path, make_image) -> list[str]:
    files = [tmp_path / f"{index:03d}.jpg" for index in range(150)]  # more than two pieces
    for index, file in enumerate(files):
        make_image(file, index)
    return [str(file) for file in files]


def decode(paths, tmp_path, **options):
    return decode_images(paths, **{"size": (128, 64), "cache": tmp_path / "cache", "progress": False, **options})


def test_pixels_and_order_are_those_of_the_files(tmp_path, paths):
    images = decode(paths, tmp_path)
    assert images.shape == (150, 3, 128, 64) and images.dtype == np.uint8
    for index in (0, 63, 64, 149):
        np.testing.assert_array_equal(images[index].transpose(1, 2, 0), np.asarray(Image.open(paths[index])))
    assert not (tmp_path / "cache").exists()


def test_resizing_is_antialiased_height_by_width(tmp_path):
    stripes = np.zeros((256, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image = decode([str(tmp_path / "stripes.png")], tmp_path, size=(64, 32))[0]
    assert image.shape == (3, 64, 32)
    # stripes one pixel wide average out; plain bilinear sampling would keep some of them
    assert np.abs(image[:, :, 2:-2].astype(int) - 100).max() <= 1


def test_a_name_that_is_no_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Image.new("RGB", (64, 128)).save(path)
    assert decode([path], tmp_path, in_memory_limit=0).shape == (1, 3, 128, 64)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_every_color_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode in ("L", "CMYK") else "image.png")
    Image.new("RGB", (64, 128), (204, 204, 204)).convert(mode).save(path)
    image = decode([str(path)], tmp_path)[0]
    assert image.shape == (3, 128, 64) and np.abs(image.astype(int) - 204).max() <= 2


def test_a_large_array_is_a_read_only_file_decoded_once(tmp_path, paths, monkeypatch):
    mapped = decode(paths, tmp_path, in_memory_limit=0)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, decode(paths, tmp_path))
    monkeypatch.setattr(cache_module, "decode_image", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(decode(paths, tmp_path, in_memory_limit=0), mapped)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_limit_counts_bytes(tmp_path, paths):
    needed = 150 * 3 * 128 * 64
    assert not isinstance(decode(paths, tmp_path, in_memory_limit=needed), np.memmap)
    assert isinstance(decode(paths, tmp_path, in_memory_limit=needed - 1), np.memmap)


@pytest.mark.parametrize("change", ["content", "time", "order", "size"])
def test_a_changed_dataset_is_decoded_again(tmp_path, paths, make_image, change):
    before = np.array(decode(paths, tmp_path, in_memory_limit=0))
    options = {}
    if change == "content":
        make_image(Path(paths[3]), 999)
    elif change == "time":
        os.utime(paths[3], ns=(1, 1))
    elif change == "order":
        paths[0], paths[1] = paths[1], paths[0]
    else:
        options["size"] = (64, 32)
    after = decode(paths, tmp_path, in_memory_limit=0, **options)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    if change in ("content", "order"):
        assert not np.array_equal(after, before)


@pytest.mark.parametrize("cut", [2, 60, 1200])
@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_truncated_image_is_named_and_leaves_nothing(tmp_path, paths, cut, limit):
    broken = Path(paths[100])
    broken.write_bytes(broken.read_bytes()[:-cut])
    with pytest.raises(InputError, match="unreadable or truncated") as caught:
        decode(paths, tmp_path, in_memory_limit=limit)
    assert str(broken) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("content", [b"", b"plain text", b"\xff\xd8\xff\xe0" + b"\0" * 30, b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_file_that_is_not_an_image_is_named(tmp_path, content):
    path = tmp_path / "no.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no\.jpg: unreadable or truncated"):
        decode([str(path)], tmp_path)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_missing_image_is_named(tmp_path, paths, limit):
    os.unlink(paths[7])
    with pytest.raises(InputError, match=r"007\.jpg: no such image"):
        decode(paths, tmp_path, in_memory_limit=limit)


def test_a_giant_image_is_refused_by_its_header(tmp_path):
    path = tmp_path / "giant.png"
    Image.new("1", (10_000, 5_001)).save(path)
    with pytest.raises(InputError, match=r"giant\.png: 10000 x 5001 pixels, above the limit of 50,000,000"):
        decode([str(path)], tmp_path)


@pytest.mark.parametrize("content", [b"plain text", None])
def test_an_incomplete_array_is_never_taken_for_a_complete_one(tmp_path, paths, monkeypatch, content):
    broken = Path(paths[100])
    broken.write_bytes(broken.read_bytes()[:-60] if content is None else content)
    found: dict[int, str] = {}
    images = decode(paths, tmp_path, in_memory_limit=0, corrupt=found)
    assert list(found) == [100] and str(broken) in found[100] and "\n" not in found[100]
    assert not images[100].any() and images[99].any()
    with pytest.raises(InputError, match=r"100\.jpg: unreadable or truncated"):
        decode(paths, tmp_path, in_memory_limit=0)
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "decode_image", lambda *_: pytest.fail("decoded again"))
        again: dict[int, str] = {}
        np.testing.assert_array_equal(decode(paths, tmp_path, in_memory_limit=0, corrupt=again), images)
        assert again == found
    os.utime(broken, ns=(1, 1))  # decoded anew, next to the other
    once_more: dict[int, str] = {}
    decode(paths, tmp_path, in_memory_limit=0, corrupt=once_more)
    assert once_more == found


def _decode_in_a_process(paths: list[str], cache: str, barrier: Any, hashes: Any) -> None:
    barrier.wait(timeout=60)
    images = decode_images(paths, size=(128, 64), cache=Path(cache), in_memory_limit=0, progress=False)
    hashes.put(hashlib.sha256(np.array(images)).hexdigest())


def test_processes_may_build_the_same_array_at_once(tmp_path, paths):
    context = multiprocessing.get_context("fork")
    barrier, hashes = context.Barrier(3), context.Queue()
    arguments = (paths, str(tmp_path / "cache"), barrier, hashes)
    processes = [context.Process(target=_decode_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = {hashes.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert found == {hashlib.sha256(np.array(decode(paths, tmp_path))).hexdigest()}
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_files_of_killed_processes_are_removed_and_those_of_running_ones_are_not(tmp_path, paths, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    left = [folder / name for name in (".decoded-1x1-00.npy.writing", ".decoded-1x1-00.abcd.partial")]
    for path in left:
        path.write_bytes(b"x")
    with atomic_file(folder / "decoded-2x2-00.npy") as living, monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 4e9)
        os.utime(living.name, (1, 1))
        living.write(b"whole")
        decode(paths, tmp_path, in_memory_limit=0)
        assert Path(living.name).exists() and not any(path.exists() for path in left)
    assert (folder / "decoded-2x2-00.npy").read_bytes() == b"whole"
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("size", [(64, 128), (50, 131), (200, 90), (31, 300)])
def test_resizing_equals_that_of_pillow_to_one_level(tmp_path, make_image, size):
    make_image(tmp_path / "image.jpg", 5, size)
    mine = decode([str(tmp_path / "image.jpg")], tmp_path, size=(256, 128))[0].transpose(1, 2, 0)
    with Image.open(tmp_path / "image.jpg") as image:
        expected = np.asarray(image.resize((128, 256), Image.Resampling.BILINEAR))
    assert np.abs(mine.astype(int) - expected).max() <= 1


def test_a_full_disk_leaves_nothing(tmp_path, paths, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        decode(paths, tmp_path, in_memory_limit=0)
    assert not list((tmp_path / "cache").iterdir())


def test_free_space_is_checked_first(tmp_path, paths, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * 2**20))
    monkeypatch.setattr(cache_module, "decode_image", lambda *_: pytest.fail("decoded all the same"))
    with pytest.raises(InputError, match=r"decoding 150 images at 128x64 needs 4 MiB .* has 3 MiB free"):
        decode(paths, tmp_path, in_memory_limit=0)


def stored_file(tmp_path: Path) -> Path:
    (stored,) = (tmp_path / "cache").iterdir()
    return stored


def test_a_file_without_digests_is_decoded_again(tmp_path, paths, caplog):
    expected = np.array(decode(paths, tmp_path, in_memory_limit=0))
    stored = stored_file(tmp_path)
    np.save(stored, np.zeros_like(expected))  # as an older version would have written it, with other pixels
    for name in (stored.with_suffix(".incomplete.npy"), stored.with_suffix(".broken.json")):
        name.write_bytes(b"")
    np.testing.assert_array_equal(decode(paths, tmp_path, in_memory_limit=0), expected)
    assert "without digests as written by older versions; the images are decoded again" in caplog.text
    assert stored_file(tmp_path) == stored


def test_an_array_of_one_image_and_another_reader_of_npy_files(tmp_path, paths):
    image = decode(paths[:1], tmp_path, in_memory_limit=0)
    np.testing.assert_array_equal(np.load(stored_file(tmp_path)), image)


def test_every_changed_byte_is_refused_or_read_equal(tmp_path, make_image, monkeypatch, caplog):
    caplog.set_level("ERROR")
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for index, file in enumerate(files):
        make_image(file, index, (4, 2))
    files[1].write_bytes(b"no image")
    monkeypatch.setattr(cache_module, "_CHUNK", 2)
    corrupt: dict[int, str] = {}
    options = {"size": (4, 2), "in_memory_limit": 0}
    names = list(map(str, files))
    expected = np.array(decode(names, tmp_path, corrupt=corrupt, **options))
    stored = stored_file(tmp_path)
    content = stored.read_bytes()
    damaged = [content[:length] for length in range(0, len(content), 5)] + [content + b"\0"]
    for place in range(len(content)):
        damaged.append(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
    for bad in damaged:
        stored.write_bytes(bad)
        assert cache_module._open_stored(stored, expected.shape, {}) is None
    again: dict[int, str] = {}
    np.testing.assert_array_equal(decode(names, tmp_path, corrupt=again, **options), expected)
    assert stored.read_bytes() == content and again == corrupt and list(corrupt) == [1]


def test_a_disk_that_fails_is_no_corrupt_file(tmp_path, paths, monkeypatch):
    decode(paths, tmp_path, in_memory_limit=0)

    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    stored = stored_file(tmp_path)
    content = stored.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        with pytest.raises(OSError, match="Input/output error") as caught:
            decode(paths, tmp_path, in_memory_limit=0)
    assert caught.value.filename == str(stored) and stored.read_bytes() == content
