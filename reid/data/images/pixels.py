"""The pixels a loader reads: decoded images in memory, memory-mapped or on the device, or files decoded on demand.

Both give the same pixels: the decoded array holds the result of `decode_image` for each file.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reid.data.images.decode import decode_image
from reid.data.threads import decoding_threads, single_thread_initializer
from reid.errors import InputError
from reid.io.images import CorruptImage

logger = logging.getLogger(__name__)

# The rest of a device's free memory is left to the network and its activations.
_MAX_DEVICE_FRACTION = 1 / 3
_COPY_CHUNK = 1024
_IMAGES_PER_TASK = 8

ImageBatch = tuple[Tensor, dict[int, CorruptImage]]
"""Pixels (B, 3, H, W) uint8 and, by position in the batch, the errors of images that could not be read."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Images decoded in advance.

    Attributes:
        pixels: (N, 3, H, W) uint8, an array or a tensor on any device.
        corrupt: Image number -> reason why the image could not be read.
    """

    pixels: np.ndarray | Tensor
    corrupt: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)


class LazyImages(Protocol):
    """Images decoded each time they are read."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def threads(self) -> int:
        """Decoding threads; with 1, the reading thread decodes; 0 for `decoding_threads` when reading starts."""
        ...

    def __len__(self) -> int: ...

    def decode(self, number: int) -> np.ndarray:
        """Decode one image.

        Args:
            number: Position of the image, from 0.

        Returns:
            (3, H, W) uint8.

        Raises:
            CorruptImage: If the image cannot be read.
            InputError: If the file does not exist.
        """
        ...


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files decoded each time they are read.

    Attributes:
        paths: Paths of the N image files.
        size: Height and width in pixels.
        threads: Decoding threads; with 1, the reading thread decodes; 0 for `decoding_threads` when reading starts.
        resize: One of `reid.data.images.decode.FILTERS`.
    """

    paths: Sequence[str]
    size: tuple[int, int]
    threads: int = 1
    resize: str = "bilinear"

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, number: int) -> np.ndarray:
        """Decode one image; see `LazyImages.decode`.

        Args:
            number: Position of the image, from 0.

        Returns:
            (3, H, W) uint8.
        """
        return decode_image(self.paths[number], self.size, self.resize)


Images = np.ndarray | DecodedImages | LazyImages


def as_image_source(images: Images) -> DecodedImages | LazyImages:
    """Check images and wrap a bare array in `DecodedImages`.

    Args:
        images: (N, 3, H, W) uint8 array, `DecodedImages` or `LazyImages`.

    Returns:
        The images as one of the two classes.

    Raises:
        InputError: If decoded images are not (N, 3, H, W) uint8.
    """
    if not isinstance(images, np.ndarray | DecodedImages):
        return images
    decoded = images if isinstance(images, DecodedImages) else DecodedImages(images)
    pixels = decoded.pixels
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype not in (np.uint8, torch.uint8):
        raise InputError(f"images must be (N, 3, H, W) uint8, not {pixels.dtype} {tuple(pixels.shape)}")
    return decoded


def slice_images(images: Images, first: int, last: int) -> Images:
    """Take a range of images.

    Args:
        images: `DecodedImages` or `ImageFiles`.
        first: Index of the first image taken.
        last: Index after the last image taken.

    Returns:
        The images, numbered from 0.
    """
    source = as_image_source(images)
    if isinstance(source, ImageFiles):
        return dataclasses.replace(source, paths=source.paths[first:last])
    if not isinstance(source, DecodedImages):
        raise TypeError(f"{type(source).__name__} cannot be sliced")
    corrupt = {number - first: reason for number, reason in source.corrupt.items() if first <= number < last}
    return DecodedImages(source.pixels[first:last], corrupt)


def move_to_device(images: DecodedImages, device: torch.device, mode: str) -> DecodedImages:
    """Move decoded images to the memory of a device.

    Args:
        images: Images in host memory or in a memory-mapped file.
        device: The device that trains.
        mode: "on"; "off", which returns the images as they are; or "auto", which moves them to a GPU with three times
            their size free.

    Returns:
        The images, possibly in the memory of `device`.

    Raises:
        InputError: If the mode is "on" and the images do not fit.
    """
    if mode == "off" or (mode == "auto" and device.type != "cuda") or isinstance(images.pixels, Tensor):
        return images
    size = images.pixels.nbytes
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if mode == "auto" and size > free * _MAX_DEVICE_FRACTION:
            logger.info("%d MiB of images stay in host memory: %s has %d MiB free", size >> 20, device, free >> 20)
            return images
        if size > free:
            raise InputError(
                f"INPUT.DEVICE_CACHE on: {size / 2**20:,.0f} MiB of images do not fit into {device}, which has "
                f"{free / 2**20:,.0f} MiB free; set it to auto or off"
            )
    moved = torch.empty(images.pixels.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _COPY_CHUNK):
        # A copy, because a mapped array is read-only and torch has no read-only tensors.
        moved[start : start + _COPY_CHUNK] = torch.from_numpy(np.array(images.pixels[start : start + _COPY_CHUNK]))
    return DecodedImages(moved, images.corrupt)


def to_device(images: Tensor, device: torch.device | str) -> Tensor:
    """Move a batch to the device, to a GPU asynchronously from pinned memory.

    Args:
        images: Batch of any shape, on any device.
        device: Where it is needed.

    Returns:
        The batch on the device.
    """
    if torch.device(device).type == "cuda" and images.device.type == "cpu":
        with torch.cuda.device(device):  # otherwise a thread would pin the memory for the first GPU
            return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def read_batches(images: DecodedImages | LazyImages, batches: Iterable[np.ndarray]) -> Iterator[ImageBatch]:
    """Read images batch by batch.

    `LazyImages` are decoded by their threads, one batch in advance; the threads end with the iteration.

    Args:
        images: Images to read from.
        batches: (B,) int64 image indices of each batch.

    Yields:
        The pixels of each batch, newly allocated, black for an image that cannot be read, and the errors of these.

    Raises:
        InputError: If a file does not exist.
    """
    if isinstance(images, DecodedImages):
        for rows in batches:
            yield _take(images.pixels, rows), _corrupt_among(images.corrupt, rows)
    elif (threads := images.threads or decoding_threads()) == 1:
        for rows in batches:
            yield _stack([_decode(images, rows)], images.size)
    else:
        yield from _read_with_threads(images, batches, threads)


def _take(pixels: np.ndarray | Tensor, rows: np.ndarray) -> Tensor:
    if isinstance(pixels, Tensor):
        return pixels[torch.from_numpy(rows).to(pixels.device)]
    return torch.from_numpy(np.asarray(pixels)[rows])


def _corrupt_among(corrupt: Mapping[int, str], rows: np.ndarray) -> dict[int, CorruptImage]:
    if not corrupt:
        return {}
    return {i: CorruptImage(corrupt[row]) for i, row in enumerate(rows.tolist()) if row in corrupt}


def _read_with_threads(images: LazyImages, batches: Iterable[np.ndarray], threads: int) -> Iterator[ImageBatch]:
    # Decoding calls small torch operations, for which several threads each would only wait for one another.
    pool = ThreadPoolExecutor(threads, "decode", initializer=single_thread_initializer())
    ahead: deque[list[Future[list[np.ndarray | CorruptImage]]]] = deque()
    try:
        for rows in batches:
            tasks = np.array_split(rows, max(1, -(-len(rows) // _IMAGES_PER_TASK)))
            ahead.append([pool.submit(_decode, images, task) for task in tasks])
            if len(ahead) > 1:
                yield _stack([task.result() for task in ahead.popleft()], images.size)
        while ahead:
            yield _stack([task.result() for task in ahead.popleft()], images.size)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(images: LazyImages, rows: np.ndarray) -> list[np.ndarray | CorruptImage]:
    decoded: list[np.ndarray | CorruptImage] = []
    for row in rows.tolist():
        try:
            decoded.append(images.decode(row))
        except CorruptImage as error:
            decoded.append(error)
    return decoded


def _stack(parts: list[list[np.ndarray | CorruptImage]], size: tuple[int, int]) -> ImageBatch:
    items = [item for part in parts for item in part]
    batch, corrupt = np.empty((len(items), 3, *size), dtype=np.uint8), {}
    for i, item in enumerate(items):
        if isinstance(item, CorruptImage):
            batch[i], corrupt[i] = 0, item
        else:
            batch[i] = item
    return torch.from_numpy(batch), corrupt
