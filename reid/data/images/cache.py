"""What is made once and kept: folders under the cache and the images decoded into one array, never half-written."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from reid.data.images.decode import CorruptImage, decode_image
from reid.data.threads import one_thread_each
from reid.errors import InputError
from reid.io.atomic import check_free_space, commit, write_bytes

_CHUNK = 64
# Whoever builds an array writes to it all the time; one untouched for so long was left by a process that was killed.
_ABANDONED_SECONDS = 3600


def decode_images(
    paths: Sequence[str],
    *,
    size: tuple[int, int],
    cache: Path,
    in_memory_limit: int = 128 * 2**20,
    progress: bool = True,
    broken: dict[int, str] | None = None,
    resize: str = "bilinear",
) -> np.ndarray:
    """Decode images once, resized to `size`, into one (N, 3, height, width) uint8 array, RGB.

    size: (height, width) in pixels; an image of another size is resized by `resize`, one of FILTERS, with antialiasing.
    An array above `in_memory_limit` bytes is kept as a file under `cache` and returned as a read-only `np.memmap`; its
    name is a digest of the images' paths, sizes, times and of `size`, so a changed image is decoded anew. A smaller
    array is decoded into memory. Processes that build the same array at once each make their own, and the last one
    stays.

    Raises `InputError` for an image that is missing, unreadable, truncated or larger than 50 megapixels (its path
    named) and for a disk without room. broken: an empty dict; where it is given, an image that is there and cannot be
    read is no error, but black, and its number and what is wrong with it are put here.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"image size {height}x{width} (height x width) must be positive")
    shape = (len(paths), 3, height, width)
    needed = len(paths) * 3 * height * width
    if needed <= in_memory_limit:
        array = np.empty(shape, dtype=np.uint8)
        done = 0
        for chunk in _decoded_chunks(paths, size, resize, progress, broken):
            array[done : done + len(chunk)] = chunk
            done += len(chunk)
        return array

    stored = cache / f"decoded-{height}x{width}-{_fingerprint(paths, size, resize)}.npy"
    incomplete, note = stored.with_suffix(".incomplete.npy"), stored.with_suffix(".broken.json")
    if broken is not None and incomplete.is_file() and (known := _read_note(note)):
        broken.update(known)
        return _open_stored(incomplete, shape)
    if not stored.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(stored)
        check_free_space(cache, needed, f"decoding {len(paths):,} images at {height}x{width}")
        with _temporary_array(stored, shape, _decoded_chunks(paths, size, resize, progress, broken)) as file:
            if broken:
                # The array lacks images, so it may never be taken for the whole one: another name, the note first.
                mine = Path(file.name).with_suffix(".json")
                write_bytes(mine, json.dumps(dict(sorted(broken.items()))).encode())
                os.replace(mine, note)
            commit(file, incomplete if broken else stored)
    return _open_stored(incomplete if broken else stored, shape)


def _decoded_chunks(
    paths: Sequence[str], size: tuple[int, int], resize: str, progress: bool, broken: dict[int, str] | None
) -> Iterator[np.ndarray]:
    """(n, 3, H, W) uint8 pieces in the order of `paths`, decoded by one thread a core, a few pieces ahead."""

    def decode(start: int) -> np.ndarray:
        part = paths[start : start + _CHUNK]
        chunk = np.zeros((len(part), 3, *size), dtype=np.uint8)
        for place, path in enumerate(part):
            try:
                chunk[place] = decode_image(path, size, resize)
            except CorruptImage as error:
                if broken is None:
                    raise
                broken[start + place] = str(error)
        return chunk

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = iter(range(0, len(paths), _CHUNK))
    # What decoding asks of torch is small: threads of its own would only wait for each other.
    pool = ThreadPoolExecutor(workers, "decode", initializer=one_thread_each())
    try:
        with tqdm(
            total=len(paths), desc="decoding images", unit="img", disable=None if progress else True, leave=False
        ) as bar:
            ahead: deque[Future[np.ndarray]] = deque(
                pool.submit(decode, part) for part in itertools.islice(parts, 4 * workers)
            )
            while ahead:
                chunk = ahead.popleft().result()
                ahead.extend(pool.submit(decode, part) for part in itertools.islice(parts, 1))
                bar.update(len(chunk))
                yield chunk
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _temporary_array(stored: Path, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> Iterator[IO[bytes]]:
    """Write an .npy file piece by piece under a name of its own; the block commits it, else it is removed.

    Plain writes, because a full disk under a memory map would kill the process instead of raising an error.
    """
    handle, partial = tempfile.mkstemp(prefix=f".{stored.stem}.", suffix=".partial", dir=stored.parent)
    os.close(handle)
    try:
        with open(partial, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(chunk.data)
            yield file
    finally:
        Path(partial).unlink(missing_ok=True)


def _remove_abandoned(stored: Path) -> None:
    """Delete what processes that were killed left of this array."""
    for partial in stored.parent.glob(f".{stored.stem}.*.partial"):
        # Another process may be as quick.
        with suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                partial.unlink()


def _read_note(note: Path) -> dict[int, str]:
    """The numbers of the images that an incomplete array lacks; empty where that is unknown, so that it is not used."""
    try:
        return {int(number): str(reason) for number, reason in json.loads(note.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _open_stored(stored: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(stored, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{stored}: damaged cache file ({error}); delete it and start again") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise InputError(f"{stored}: holds {array.dtype} {array.shape}, not uint8 {shape}; delete it and start again")
    return array


def _fingerprint(paths: Sequence[str], size: tuple[int, int], resize: str) -> str:
    digest = hashlib.sha256(f"rgb {resize} torch {size[0]}x{size[1]}\n".encode())
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
        digest.update(f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
