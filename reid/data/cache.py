"""What is made once and kept: folders under the cache and the images decoded into one array, never half-written."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import struct
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from reid.errors import InputError

MAX_PIXELS = 50_000_000
_CHUNK = 64
_SPACE_MARGIN = 64 * 2**20


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise `InputError` when `folder` cannot take `needed` more bytes; `purpose` says what they are for."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SPACE_MARGIN:
        raise InputError(
            f"{purpose} needs {needed / 2**20:,.0f} MiB in {folder}, which has {free / 2**20:,.0f} MiB free; "
            "free some space or choose another cache folder"
        )


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A fresh folder to fill, which becomes `destination` when the block ends well and vanishes when it does not.

    A reader thus sees the whole folder or none. Where another process was faster, its folder stays and this one goes.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
    try:
        partial.chmod(0o755)
        yield partial
        try:
            partial.rename(destination)
        except OSError:
            if not destination.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def decode_images(
    paths: Sequence[str],
    *,
    size: tuple[int, int],
    cache: Path,
    in_memory_limit: int = 512 * 2**20,
    progress: bool = True,
) -> np.ndarray:
    """Decode images once, resized to `size`, into one (N, 3, height, width) uint8 array, RGB.

    size: (height, width) in pixels; an image of another size is resized bilinearly with antialiasing. An array above
    `in_memory_limit` bytes is kept as a file under `cache` and returned as a read-only `np.memmap`; its name is a
    digest of the images' paths, sizes, times and of `size`, so a changed image is decoded anew. A smaller array is
    decoded into memory. Raises `InputError` for an image that is missing, unreadable, truncated or larger than
    50 megapixels (its path named) and for a disk without room.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"image size {height}x{width} (height x width) must be positive")
    shape = (len(paths), 3, height, width)
    needed = len(paths) * 3 * height * width
    if needed <= in_memory_limit:
        array = np.empty(shape, dtype=np.uint8)
        done = 0
        for chunk in _decoded_chunks(paths, size, progress):
            array[done : done + len(chunk)] = chunk
            done += len(chunk)
        return array

    stored = cache / f"decoded-{height}x{width}-{_fingerprint(paths, size)}.npy"
    if not stored.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        check_free_space(cache, needed, f"decoding {len(paths):,} images at {height}x{width}")
        _store(stored, shape, _decoded_chunks(paths, size, progress))
    return _open_stored(stored, shape)


def decode_image(path: str, size: tuple[int, int]) -> np.ndarray:
    """One image as (3, height, width) uint8 RGB; see `decode_images` for the resizing and the errors."""
    height, width = size
    image = read_image(path)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def read_image(path: str) -> Image.Image:
    """One image in its own size, RGB, as it is stored: a rotation that EXIF asks for is not made.

    Raises `InputError` as `decode_images` does.
    """
    try:
        with Image.open(path) as image:
            columns, rows = image.size
            if columns * rows > MAX_PIXELS:
                raise InputError(
                    f"{path}: {columns} x {rows} pixels, above the limit of {MAX_PIXELS:,}; "
                    "store it smaller or take it out"
                )
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}") from None
    # Pillow tells broken files by whatever its decoders meet; a full disk or a missing right is not among them here.
    except (OSError, SyntaxError, EOFError, IndexError, ValueError, struct.error) as error:
        if isinstance(error, (InputError, PermissionError)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: unreadable or truncated image ({reason}); replace it or take it out") from None


def _decoded_chunks(paths: Sequence[str], size: tuple[int, int], progress: bool) -> Iterator[np.ndarray]:
    """(n, 3, H, W) uint8 pieces in the order of `paths`, decoded by one thread a core, a few pieces ahead."""

    def decode(part: Sequence[str]) -> np.ndarray:
        return np.stack([decode_image(path, size) for path in part])

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
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


def _store(stored: Path, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> None:
    """Write an .npy file piece by piece and rename it into place when it is whole.

    Plain writes, because a full disk under a memory map would kill the process instead of raising an error.
    """
    handle, partial = tempfile.mkstemp(prefix=f".{stored.stem}.", suffix=".partial", dir=stored.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, stored)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _open_stored(stored: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(stored, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{stored}: damaged cache file ({error}); delete it and start again") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise InputError(f"{stored}: holds {array.dtype} {array.shape}, not uint8 {shape}; delete it and start again")
    return array


def _fingerprint(paths: Sequence[str], size: tuple[int, int]) -> str:
    digest = hashlib.sha256(f"rgb bilinear {size[0]}x{size[1]}\n".encode())
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
        digest.update(f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
