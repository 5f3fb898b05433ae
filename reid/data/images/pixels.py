"""Where a loader's pixels come from: an array decoded before, in memory, mapped or on the device, or the files.

Both ways give the same pixels: the array holds what `decode_image` makes of each file.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reid.data.images.decode import CorruptImage, decode_image
from reid.data.threads import one_thread_each
from reid.errors import InputError

logger = logging.getLogger(__name__)

# Of the memory that a device has free; the rest is for the network and what it computes.
_SHARE_OF_DEVICE = 1 / 3
_PIECE = 1024
_TASK = 8

# Pixels (B, 3, H, W) uint8 and, by position in the batch, what is wrong with those that could not be read.
Read = tuple[Tensor, dict[int, CorruptImage]]


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """pixels: (N, 3, H, W) uint8, an array or a tensor on any device. broken: what is wrong, by image number."""

    pixels: np.ndarray | Tensor
    broken: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)


class EachDecoded(Protocol):
    """Images decoded each time they are wanted. size: height and width. threads: that decode; 1: the reading one."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def threads(self) -> int: ...

    def __len__(self) -> int: ...

    def decode(self, number: int) -> np.ndarray:
        """One image, (3, H, W) uint8. Raises CorruptImage for one that cannot be read, InputError for a missing one."""
        ...


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files decoded each time they are wanted. resize: the filter, see `reid.data.images.cache.decode_images`."""

    paths: Sequence[str]
    size: tuple[int, int]
    threads: int = 1
    resize: str = "bilinear"

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, number: int) -> np.ndarray:
        """See `EachDecoded`."""
        return decode_image(self.paths[number], self.size, self.resize)


Images = np.ndarray | DecodedImages | EachDecoded


def checked(images: Images) -> DecodedImages | EachDecoded:
    """`images`, a bare array as what it stands for. Raises InputError where it is no (N, 3, H, W) uint8."""
    if not isinstance(images, np.ndarray | DecodedImages):
        return images
    decoded = images if isinstance(images, DecodedImages) else DecodedImages(images)
    pixels = decoded.pixels
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype not in (np.uint8, torch.uint8):
        raise InputError(f"images must be (N, 3, H, W) uint8, not {pixels.dtype} {tuple(pixels.shape)}")
    return decoded


def rows_of(images: Images, first: int, last: int) -> Images:
    """The images from number `first` to before `last`, numbered from 0."""
    found = checked(images)
    if isinstance(found, ImageFiles):
        return dataclasses.replace(found, paths=found.paths[first:last])
    if not isinstance(found, DecodedImages):
        raise TypeError(f"{type(found).__name__} has no stretches")
    broken = {number - first: reason for number, reason in found.broken.items() if first <= number < last}
    return DecodedImages(found.pixels[first:last], broken)


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_device(images: DecodedImages, device: torch.device, mode: str) -> DecodedImages:
    """The decoded set in the memory of `device`.

    mode: "on"; "off", which leaves it where it is; or "auto", which moves it to a GPU that has three times its size
    free. Raises InputError for "on" where there is no room.
    """
    if mode == "off" or (mode == "auto" and device.type != "cuda") or isinstance(images.pixels, Tensor):
        return images
    size = images.pixels.nbytes
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if mode == "auto" and size > free * _SHARE_OF_DEVICE:
            logger.info("%d MiB of images stay in memory: %s has %d MiB free", size >> 20, device, free >> 20)
            return images
        if size > free:
            raise InputError(
                f"INPUT.DEVICE_CACHE on: {size / 2**20:,.0f} MiB of images do not fit into {device}, which has "
                f"{free / 2**20:,.0f} MiB free; set it auto or off"
            )
    moved = torch.empty(images.pixels.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _PIECE):
        # A copy, because a mapped array is read-only and torch has no read-only tensors.
        moved[start : start + _PIECE] = torch.from_numpy(np.array(images.pixels[start : start + _PIECE]))
    return DecodedImages(moved, images.broken)


def to_device(images: Tensor, device: torch.device | str) -> Tensor:
    """A batch on the device; to a GPU it goes from pinned memory, while others compute."""
    if torch.device(device).type == "cuda" and images.device.type == "cpu":
        with torch.cuda.device(device):  # else a thread pins on the first GPU, whosever that is
            return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def read(images: DecodedImages | EachDecoded, batches: Iterable[np.ndarray]) -> Iterator[Read]:
    """The images of each batch of numbers, (B,) int64, in a tensor of their own.

    Images that cannot be read are black. Files are decoded by `threads` threads, one batch in advance, which end with
    the iteration. A missing file raises InputError.
    """
    if isinstance(images, DecodedImages):
        for rows in batches:
            yield _chosen(images.pixels, rows), _broken(images.broken, rows)
    elif images.threads == 1:
        for rows in batches:
            yield _stacked([_decoded(images, rows)], images.size)
    else:
        yield from _read_by_threads(images, batches)


def _chosen(pixels: np.ndarray | Tensor, rows: np.ndarray) -> Tensor:
    if isinstance(pixels, Tensor):
        return pixels[torch.from_numpy(rows).to(pixels.device)]
    return torch.from_numpy(np.asarray(pixels)[rows])


def _broken(broken: Mapping[int, str], rows: np.ndarray) -> dict[int, CorruptImage]:
    if not broken:
        return {}
    return {place: CorruptImage(broken[row]) for place, row in enumerate(rows.tolist()) if row in broken}


def _read_by_threads(images: EachDecoded, batches: Iterable[np.ndarray]) -> Iterator[Read]:
    # What decoding asks of torch is small: threads of its own would only wait for each other.
    pool = ThreadPoolExecutor(images.threads, "decode", initializer=one_thread_each())
    ahead: deque[list[Future[list[np.ndarray | CorruptImage]]]] = deque()
    try:
        for rows in batches:
            tasks = np.array_split(rows, max(1, -(-len(rows) // _TASK)))
            ahead.append([pool.submit(_decoded, images, task) for task in tasks])
            if len(ahead) > 1:
                yield _stacked([task.result() for task in ahead.popleft()], images.size)
        while ahead:
            yield _stacked([task.result() for task in ahead.popleft()], images.size)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decoded(images: EachDecoded, rows: np.ndarray) -> list[np.ndarray | CorruptImage]:
    found: list[np.ndarray | CorruptImage] = []
    for row in rows.tolist():
        try:
            found.append(images.decode(row))
        except CorruptImage as error:
            found.append(error)
    return found


def _stacked(parts: list[list[np.ndarray | CorruptImage]], size: tuple[int, int]) -> Read:
    items = [item for part in parts for item in part]
    batch, broken = np.empty((len(items), 3, *size), dtype=np.uint8), {}
    for place, item in enumerate(items):
        if isinstance(item, CorruptImage):
            batch[place], broken[place] = 0, item
        else:
            batch[place] = item
    return torch.from_numpy(batch), broken
