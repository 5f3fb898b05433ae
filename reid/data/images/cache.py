"""Cache of decoded images: one array, written completely or not at all, and verified when it is opened."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import math
import os
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from reid.data.images.decode import decode_image
from reid.data.threads import decoding_threads, single_thread_initializer
from reid.errors import InputError
from reid.io.atomic import atomic_file, check_free_space, make_folder
from reid.io.digest import compute_digest
from reid.io.images import CorruptImage
from reid.io.locks import remove_abandoned
from reid.progress import progress_bar

logger = logging.getLogger(__name__)

_CHUNK = 64
_MAGIC = b"reid-px1"
# At the end of the file: the length of the digests in JSON, the digest of header and digests, the version.
_END = struct.Struct(f"<Q32s{len(_MAGIC)}s")


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
    so that a changed image is decoded again. The file is verified by digests when it is opened, and decoded again if it
    is corrupt. Processes that build the same array at the same time each write their own, and the last one stays.

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
            larger than 50 megapixels, or there is too little disk space.
        OSError: If the machine cannot read an image now; nothing is stored then.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"image size {height}x{width} (height x width) must be positive")
    shape = (len(paths), 3, height, width)
    needed = len(paths) * 3 * height * width
    if needed <= in_memory_limit:
        return _concatenate(_decoded_chunks(paths, size, resize, progress, corrupt), shape)

    stored = cache / f"decoded-{height}x{width}-{_fingerprint(paths, size, resize)}.npy"
    known: dict[int, str] = {}
    array = _open_stored(stored, shape, known)
    if array is not None and (corrupt is not None or not known):
        (corrupt if corrupt is not None else {}).update(known)
        return array
    make_folder(cache)
    _remove_abandoned(stored)
    check_free_space(cache, needed, f"decoding {len(paths):,} images at {height}x{width}")
    with atomic_file(stored) as file:
        _write_array(file, shape, _decoded_chunks(paths, size, resize, progress, corrupt), corrupt)
    known = {}
    array = _open_stored(stored, shape, known)
    if array is None or (known and corrupt is None):
        raise InputError(f"{stored}: changed or damaged while it was written; check the disk and start again")
    return array


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
    """(n, 3, H, W) uint8 chunks in the order of `paths`, decoded by `decoding_threads`, a few chunks ahead."""

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

    workers = decoding_threads()
    parts = iter(range(0, len(paths), _CHUNK))
    # Decoding calls small torch operations, for which several threads each would only wait for one another.
    pool = ThreadPoolExecutor(workers, "decode", initializer=single_thread_initializer())
    try:
        with progress_bar("decoding images", len(paths), unit="images", shown=progress) as bar:
            ahead: deque[Future[np.ndarray]] = deque(
                pool.submit(decode, part) for part in itertools.islice(parts, 4 * workers)
            )
            while ahead:
                chunk = ahead.popleft().result()
                ahead.extend(pool.submit(decode, part) for part in itertools.islice(parts, 1))
                bar.advance(len(chunk))
                yield chunk
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_array(
    file: IO[bytes], shape: tuple[int, ...], chunks: Iterator[np.ndarray], corrupt: Mapping[int, str] | None
) -> None:
    """Write an `.npy` file followed by the digest of each chunk, which NumPy ignores.

    Plain writes, because a full disk under a memory map would kill the process instead of raising an error.
    """
    header, digests = _npy_header(shape), list[str]()
    file.write(header)
    for chunk in chunks:
        data = chunk.reshape(-1).data
        file.write(data)
        digests.append(compute_digest(data))
    known = {str(number): reason for number, reason in sorted((corrupt or {}).items())}
    trailer = json.dumps({"digests": digests, "corrupt": known}).encode("ascii")
    file.write(trailer)
    file.write(_END.pack(len(trailer), bytes.fromhex(compute_digest(header, trailer)), _MAGIC))


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(np.uint8))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _remove_abandoned(stored: Path) -> None:
    """Delete files that killed processes left, and those of this array in the format of older versions."""
    for pattern in (".decoded-*.writing", ".decoded-*.partial"):
        remove_abandoned(stored.parent, pattern)
    for suffix in (".incomplete.npy", ".broken.json"):
        stored.with_suffix(suffix).unlink(missing_ok=True)


def _open_stored(stored: Path, shape: tuple[int, ...], corrupt: dict[int, str]) -> np.ndarray | None:
    """Map an array and verify all of it, adding its unreadable images to `corrupt`; None if it must be decoded again.

    Reading all of it also brings it into memory, from where the first epoch reads it again.
    """
    try:
        with open(stored, "rb") as file:
            known = _verify(file, shape)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(stored)) from None
    except _Refused as error:
        logger.warning("%s: %s; the images are decoded again", stored, error)
        return None
    corrupt.update(known)
    return np.memmap(stored, dtype=np.uint8, mode="r", offset=len(_npy_header(shape)), shape=shape)


class _Refused(Exception):
    """The reason why a stored array is not used."""


def _verify(file: IO[bytes], shape: tuple[int, ...]) -> dict[int, str]:
    """Verify a file of `_write_array`; its unreadable images."""
    header, size = _npy_header(shape), os.fstat(file.fileno()).st_size
    pixels_end = len(header) + math.prod(shape)
    file.seek(max(0, size - _END.size))
    end = file.read()
    if len(end) < _END.size or not end.endswith(_MAGIC):
        raise _Refused("truncated, or without digests as written by older versions")
    trailer_size, digest, _ = _END.unpack(end)
    if size != pixels_end + trailer_size + _END.size:
        raise _Refused("corrupt")
    file.seek(pixels_end)
    trailer = file.read(trailer_size)
    file.seek(0)
    if file.read(len(header)) != header or bytes.fromhex(compute_digest(header, trailer)) != digest:
        raise _Refused("corrupt")
    content, chunk_size = json.loads(trailer), _CHUNK * math.prod(shape[1:])

    def verify(start: int, expected: str) -> bool:
        return compute_digest(os.pread(file.fileno(), min(chunk_size, pixels_end - start), start)) == expected

    # A few threads at once, as reading and hashing let others run.
    starts = range(len(header), pixels_end, chunk_size)
    with ThreadPoolExecutor(decoding_threads(), "verify") as pool:
        if len(content["digests"]) != len(starts) or not all(pool.map(verify, starts, content["digests"])):
            raise _Refused("corrupt")
    return {int(number): reason for number, reason in content["corrupt"].items()}


def _fingerprint(paths: Sequence[str], size: tuple[int, int], resize: str) -> str:
    digest = hashlib.sha256(f"rgb {resize} torch {size[0]}x{size[1]}\n".encode())
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
        line = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
