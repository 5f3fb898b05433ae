"""Cache of decoded images: decoded once into one array, which is written completely or not at all."""

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

from reid.data.images.decode import decode_image
from reid.data.threads import available_cores, single_thread_initializer
from reid.errors import InputError
from reid.io.atomic import check_free_space, commit, write_bytes
from reid.io.images import CorruptImage

_CHUNK = 64
# A process that builds an array writes to it all the time; an older file was left by a process that was killed.
_ABANDONED_SECONDS = 3600


def decode_images(
    paths: Sequence[str],
    *,
    size: tuple[int, int],
    cache: Path,
    in_memory_limit: int = 128 * 2**20,
    progress: bool = True,
    corrupt: dict[int, str] | None = None,
    resize: str = "bilinear",
) -> np.ndarray:
    """Decode images into one array and resize them to `size`.

    A large array is kept as a file, whose name is a digest of the images' paths, sizes and times, `size` and `resize`,
    so that a changed image is decoded again. Processes that build the same array at the same time each write their own,
    and the last one stays.

    Args:
        paths: N image files.
        size: Height and width in pixels.
        cache: Folder of the file.
        in_memory_limit: Bytes up to which an array is decoded into memory and not stored.
        progress: Whether to show a progress bar.
        corrupt: An empty dict. If given, an unreadable image is replaced by black instead of raising, and its index and
            the reason are added here.
        resize: One of `reid.data.images.decode.FILTERS`, used with antialiasing for images of a different size.

    Returns:
        (N, 3, height, width) uint8 RGB; a read-only `np.memmap` above `in_memory_limit` bytes.

    Raises:
        InputError: If the size is not positive, an image is missing or, without `corrupt`, unreadable, truncated or
            larger than 50 megapixels, or the disk is full.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"image size {height}x{width} (height x width) must be positive")
    shape = (len(paths), 3, height, width)
    needed = len(paths) * 3 * height * width
    if needed <= in_memory_limit:
        return _concatenate(_decoded_chunks(paths, size, resize, progress, corrupt), shape)

    stored = cache / f"decoded-{height}x{width}-{_fingerprint(paths, size, resize)}.npy"
    incomplete, note = stored.with_suffix(".incomplete.npy"), stored.with_suffix(".broken.json")
    if corrupt is not None and incomplete.is_file() and (known := _read_note(note)):
        corrupt.update(known)
        return _open_stored(incomplete, shape)
    if not stored.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(stored)
        check_free_space(cache, needed, f"decoding {len(paths):,} images at {height}x{width}")
        with _temporary_array(stored, shape, _decoded_chunks(paths, size, resize, progress, corrupt)) as file:
            if corrupt:
                # The array lacks images and must not be taken for a complete one: another name, the note first.
                mine = Path(file.name).with_suffix(".json")
                write_bytes(mine, json.dumps(dict(sorted(corrupt.items()))).encode())
                os.replace(mine, note)
            commit(file, incomplete if corrupt else stored)
    return _open_stored(incomplete if corrupt else stored, shape)


def _concatenate(chunks: Iterator[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, dtype=np.uint8)
    done = 0
    for chunk in chunks:
        array[done : done + len(chunk)] = chunk
        done += len(chunk)
    return array


def _decoded_chunks(
    paths: Sequence[str], size: tuple[int, int], resize: str, progress: bool, corrupt: dict[int, str] | None
) -> Iterator[np.ndarray]:
    """(n, 3, H, W) uint8 chunks in the order of `paths`, decoded by one thread per core, a few chunks ahead."""

    def decode(start: int) -> np.ndarray:
        part = paths[start : start + _CHUNK]
        chunk = np.zeros((len(part), 3, *size), dtype=np.uint8)
        for i, path in enumerate(part):
            try:
                chunk[i] = decode_image(path, size, resize)
            except CorruptImage as error:
                if corrupt is None:
                    raise
                corrupt[start + i] = str(error)
        return chunk

    workers = available_cores()
    parts = iter(range(0, len(paths), _CHUNK))
    # Decoding calls small torch operations, for which several threads each would only wait for one another.
    pool = ThreadPoolExecutor(workers, "decode", initializer=single_thread_initializer())
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
    """Write an .npy file chunk by chunk under a temporary name, to be committed by the `with` block or removed.

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
    """Delete partial files of this array that killed processes left."""
    for partial in stored.parent.glob(f".{stored.stem}.*.partial"):
        # Another process may delete it first.
        with suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                partial.unlink()


def _read_note(note: Path) -> dict[int, str]:
    """Read which images an incomplete array lacks; empty if unknown, and the array is not used then."""
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
