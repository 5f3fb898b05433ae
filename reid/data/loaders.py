"""From the decoded array to normalised batches on the device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from reid.data.augment import augment, normalise
from reid.data.samplers import Sampler, batch_count, identity_batches, mined_batches, shuffled_batches
from reid.errors import InputError

Item = TypeVar("Item")
SHUFFLED = Sampler()


@dataclass(frozen=True, eq=False)
class TrainLoader:
    """Training batches out of an array of decoded images.

    images: (N, 3, H, W) uint8, in memory or mapped. labels: (N,) int64, classes from 0. flip, erasing: probabilities;
    pad: pixels; mean, std: of the RGB channels in [0, 1]. sampler: which images meet in a batch.
    """

    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    flip: float
    pad: int
    erasing: float
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device | str
    sampler: Sampler = SHUFFLED

    def __post_init__(self) -> None:
        _check_images(self.images, self.batch_size)
        if self.labels.shape != (len(self.images),) or self.labels.dtype != np.int64:
            raise InputError(
                f"{len(self.images)} images need as many int64 labels, not {self.labels.dtype} {self.labels.shape}"
            )
        if not len(self.images):
            raise InputError("no training image")
        len(self)  # raises where no batch can be filled

    def __len__(self) -> int:
        """Batches per epoch."""
        return batch_count(self.sampler, torch.from_numpy(self.labels), self.batch_size)

    @property
    def mines(self) -> bool:
        """Whether `epoch` asks for descriptors."""
        return self.sampler.name == "mined"

    def epoch(self, seed: int, descriptors: torch.Tensor | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass: (B, 3, H, W) float32 augmented and normalised, (B,) int64, both on the device.

        Order and augmentation follow from `seed` and, of a sampler that mines, from descriptors: (N, D) on the CPU, of
        the images in their order. The next batch is made in a background thread, which ends with the iteration, also
        where that is left early.
        """
        return prefetched(lambda: self._augmented(seed, descriptors))

    def sample(self, count: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """`count` training images (all where there are fewer), the same for the same seed, without augmentation."""
        for index in self.sample_index(count, seed).split(self.batch_size):
            images, labels = self._pick(index)
            yield normalise(images, self.mean, self.std), labels

    def sample_index(self, count: int, seed: int) -> torch.Tensor:
        """Which images `sample` gives, ascending int64."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.images), generator=generator)[:count].sort().values

    def _batches(self, generator: torch.Generator, descriptors: torch.Tensor | None) -> Iterator[torch.Tensor]:
        labels, sampler = torch.from_numpy(self.labels), self.sampler
        if sampler.name == "identity":
            return identity_batches(labels, self.batch_size, sampler.instances, generator)
        if sampler.name == "mined":
            if descriptors is None or len(descriptors) != len(labels):
                raise ValueError("mining takes the descriptors of all training images")
            return mined_batches(labels, descriptors, self.batch_size, sampler.negatives, generator)
        return shuffled_batches(len(self.images), self.batch_size, generator)

    def _augmented(self, seed: int, descriptors: torch.Tensor | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for index in self._batches(generator, descriptors):
            images, labels = self._pick(index)
            yield (
                augment(
                    images,
                    flip=self.flip,
                    pad=self.pad,
                    erasing=self.erasing,
                    mean=self.mean,
                    std=self.std,
                    generator=generator,
                ),
                labels,
            )

    def _pick(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = index.numpy()
        images = torch.from_numpy(np.asarray(self.images)[rows])
        return images.to(self.device), torch.from_numpy(self.labels[rows]).to(self.device)


@dataclass(frozen=True, eq=False)
class TestLoader:
    """Query or gallery images in their order, normalised and nothing else.

    images: (N, 3, H, W) uint8; identities, cameras: (N,) int64; paths: N file names.
    """

    __test__ = False  # no test class, whatever its name says to pytest

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    paths: Sequence[str]
    batch_size: int
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device | str

    def __post_init__(self) -> None:
        _check_images(self.images, self.batch_size)
        counts = {len(self.images), len(self.identities), len(self.cameras), len(self.paths)}
        if len(counts) > 1:
            raise InputError(
                f"{len(self.images)} images with {len(self.identities)} identities, {len(self.cameras)} cameras and "
                f"{len(self.paths)} paths"
            )

    def __len__(self) -> int:
        """Batches, the last one perhaps smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """(B, 3, H, W) float32 on the device."""
        for start in range(0, len(self.images), self.batch_size):
            # A copy, because a mapped array is read-only and torch has no read-only tensors.
            images = torch.from_numpy(np.array(self.images[start : start + self.batch_size]))
            yield normalise(images.to(self.device), self.mean, self.std)


def prefetched(produce: Callable[[], Iterator[Item]], ahead: int = 1) -> Iterator[Item]:
    """Run an iterator in a background thread, `ahead` items in advance; its errors arrive here.

    The thread starts with the first item asked for and has ended when this iterator is exhausted or closed.
    """
    items: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(more: bool, item: Item | BaseException | None) -> None:
        while not stop.is_set():
            try:
                items.put((more, item), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        # Holds for this thread only. Two threads on such small operations are slower than one, and they would take
        # the cores from the training step.
        torch.set_num_threads(1)
        try:
            for item in produce():
                if stop.is_set():
                    return
                put(True, item)
            put(False, None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(False, error)

    worker = threading.Thread(target=work, name="prefetch", daemon=True)
    worker.start()
    try:
        while True:
            more, item = items.get()
            if more:
                yield item  # type: ignore[misc]
            elif isinstance(item, BaseException):
                raise item
            else:
                return
    finally:
        stop.set()
        worker.join()


def _check_images(images: np.ndarray, batch_size: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise InputError(f"images must be (N, 3, H, W) uint8, not {images.dtype} {images.shape}")
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
