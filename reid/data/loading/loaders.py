"""Loaders of normalized batches on the device, from images that are decoded in advance or on demand."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from reid.data.augmentation.augment import Augmentation, augment
from reid.data.augmentation.random_numbers import random_table, times_seen
from reid.data.images.normalization import normalize
from reid.data.images.pixels import DecodedImages, Images, as_image_source, read_batches, slice_images, to_device
from reid.data.loading.prefetch import prefetch
from reid.data.loading.samplers import (
    Sampler,
    batch_count,
    identity_batches,
    mined_batches,
    shard_batch,
    shuffled_batches,
)
from reid.distributed import process_slice
from reid.errors import InputError
from reid.io.images import CorruptImage

logger = logging.getLogger(__name__)

Batch = tuple[torch.Tensor, torch.Tensor]
SHUFFLED = Sampler()


@dataclass(frozen=True, eq=False)
class TrainLoader:
    """Training batches, augmented and normalized.

    Attributes:
        images: (N, 3, H, W) uint8, in memory, mapped or on the device, or files; the batches are the same.
        labels: (N,) int64, classes from 0.
        batch_size: Images per batch.
        augmentation: How images are augmented and normalized.
        device: Where batches are needed.
        sampler: How batches are composed.
        paths: N file names, or empty where unknown.
        on_corrupt: What to do about an image that cannot be read: "error", or "skip", which replaces it by the next
            image of its identity and counts it.
        skipped: Image number -> reason, of the images skipped so far.
    """

    images: Images
    labels: np.ndarray
    batch_size: int
    augmentation: Augmentation
    device: torch.device | str
    sampler: Sampler = SHUFFLED
    paths: Sequence[str] = ()
    on_corrupt: str = "error"
    skipped: dict[int, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        _check_images(self.images, self.batch_size)
        if self.paths and len(self.paths) != len(self.images):
            raise InputError(f"{len(self.paths)} paths for {len(self.images)} training images")
        if self.labels.shape != (len(self.images),) or self.labels.dtype != np.int64:
            raise InputError(
                f"{len(self.images)} images need as many int64 labels, not {self.labels.dtype} {self.labels.shape}"
            )
        if not len(self.images):
            raise InputError("no training image")
        len(self)  # raises if no batch can be filled
        if isinstance(self.images, DecodedImages):
            for number, reason in sorted(self.images.corrupt.items()):
                self._skip(number, CorruptImage(reason))

    def __len__(self) -> int:
        """Batches per epoch."""
        return batch_count(self.sampler, torch.from_numpy(self.labels), self.batch_size)

    def shard_sizes(self, world: int) -> tuple[int, ...]:
        """Compute how many images of a batch each process gets.

        Args:
            world: Number of processes.

        Returns:
            One size per rank.

        Raises:
            InputError: If a process would get none.
        """
        full = self.batch_size if self.sampler.group > 1 else min(self.batch_size, len(self.images))
        whole = torch.arange(full)
        return tuple(len(shard_batch(whole, self.sampler.group, rank, world)) for rank in range(world))

    @property
    def needs_descriptors(self) -> bool:
        """Whether `epoch` requires the descriptors of all training images."""
        return self.sampler.name == "mined"

    def epoch(
        self, seed: int, descriptors: torch.Tensor | None = None, start: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Iterate over one epoch.

        The order is determined by `seed` and, for a mining sampler, by `descriptors`. The augmentation of an image is
        determined by `seed`, its number and how often the epoch has shown it before. The next batch is prepared in a
        background thread, which ends with the iteration, even if that is not exhausted.

        Args:
            seed: Seed of the epoch.
            descriptors: (N, D) float32 on the CPU, in the order of the images; required by a mining sampler.
            start: Index of the first batch returned; those before it are not prepared.
            rank: Rank of this process.
            world: Number of processes. Each gets its shard of every batch (see `shard_batch`), and all shards together
                are the batch of a single process.

        Returns:
            Batches of (B, 3, H, W) float32 augmented and normalized images and (B,) int64 labels, on the device.
        """
        return prefetch(lambda: self._augmented(seed, self._shards(seed, descriptors, start, rank, world)))

    def batch_paths(
        self, seed: int, batch: int, descriptors: torch.Tensor | None = None, *, rank: int = 0, world: int = 1
    ) -> tuple[str, ...]:
        """Return the files of one batch of `epoch`.

        Args:
            seed: Seed of the epoch.
            batch: Index of the batch in the epoch, from 0.
            descriptors: Same as for `epoch`.
            rank: Rank of this process.
            world: Number of processes.

        Returns:
            File names, or an empty tuple if `paths` are unknown.
        """
        index, _ = next(self._shards(seed, descriptors, batch, rank, world))
        return tuple(self.paths[i] for i in index.tolist()) if self.paths else ()

    def sample(self, count: int, seed: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Iterate over a fixed sample of the training images, without augmentation.

        Args:
            count: Images of the sample; all, if there are fewer.
            seed: Seed that determines the sample.
            rank: Rank of this process.
            world: Number of processes. Each gets consecutive batches, all together every one.

        Returns:
            Batches like those of `epoch`.
        """
        batches = self.sample_index(count, seed).split(self.batch_size)
        return prefetch(lambda: self._plain(batches[process_slice(len(batches), rank, world)]))

    def sample_index(self, count: int, seed: int) -> torch.Tensor:
        """Return which images `sample` gives.

        Args:
            count: Images of the sample.
            seed: Seed that determines the sample.

        Returns:
            Ascending int64 image indices.
        """
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.images), generator=generator)[:count].sort().values

    def _batches(self, generator: torch.Generator, descriptors: torch.Tensor | None) -> Iterator[torch.Tensor]:
        labels, sampler = torch.from_numpy(self.labels), self.sampler
        if sampler.name == "identity":
            return identity_batches(labels, self.batch_size, sampler.instances, generator)
        if sampler.name == "mined":
            if descriptors is None or len(descriptors) != len(labels):
                raise InputError(
                    f"mining needs the descriptors of all {len(labels)} training images, not of "
                    f"{0 if descriptors is None else len(descriptors)}; was the checkpoint changed?"
                )
            return mined_batches(labels, descriptors, self.batch_size, sampler.negatives, generator)
        return shuffled_batches(len(self.images), self.batch_size, generator)

    def _shards(
        self, seed: int, descriptors: torch.Tensor | None, start: int, rank: int, world: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield a process's shard of every batch from `start` on: image indices and how often each was seen before."""
        seen: dict[int, int] = {}
        for number, index in enumerate(self._batches(torch.Generator().manual_seed(seed), descriptors)):
            # Counted over the whole batch, so that an image's random numbers do not depend on the process.
            times = torch.tensor(times_seen(index.tolist(), seen), dtype=torch.int64)
            if number >= start:
                shard = [shard_batch(part, self.sampler.group, rank, world).numpy() for part in (index, times)]
                yield shard[0], shard[1]

    def _augmented(self, seed: int, shards: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
        shards, ahead = itertools.tee(shards)
        for (index, times), (images, rows) in zip(shards, self._read(index for index, _ in ahead), strict=True):
            table = random_table(seed, index.tolist(), times.tolist())
            yield augment(images, table, self.augmentation), self._labels_of(rows)

    def _plain(self, batches: Sequence[torch.Tensor]) -> Iterator[Batch]:
        for images, rows in self._read(part.numpy() for part in batches):
            yield normalize(images, self.augmentation.mean, self.augmentation.std), self._labels_of(rows)

    def _labels_of(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.labels[rows]).to(self.device)

    def _read(self, batches: Iterator[np.ndarray]) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Yield (B, 3, H, W) uint8 on the device and the image indices, with replacements of skipped images."""
        batches, ahead = itertools.tee(batches)
        for index, (images, corrupt) in zip(batches, read_batches(as_image_source(self.images), ahead), strict=True):
            rows = index.copy()
            for position, error in corrupt.items():
                self._skip(int(index[position]), error)
                rows[position], images[position] = self._replacement(int(index[position]))
            yield to_device(images, self.device), rows

    def _skip(self, number: int, error: CorruptImage) -> None:
        """Count an image that cannot be read, or raise its error."""
        if self.on_corrupt == "error":
            raise error
        if number not in self.skipped:
            self.skipped[number] = str(error)
            logger.warning("%s; skipped in training, %d so far", error, len(self.skipped))

    def _replacement(self, number: int) -> tuple[int, torch.Tensor]:
        """Find the next readable image of the same identity, else the next of any, cyclically."""
        following = np.roll(np.arange(len(self.labels)), -number)[1:]
        same = self.labels[following] == self.labels[number]
        for candidate in np.concatenate([following[same], following[~same]]).tolist():
            if candidate in self.skipped:
                continue
            images, corrupt = next(read_batches(as_image_source(self.images), iter([np.array([candidate])])))
            if not corrupt:
                return candidate, images[0]
            self._skip(candidate, corrupt[0])
        raise InputError(f"all {len(self.labels)} training images are unreadable; is the dataset damaged?")


@dataclass(frozen=True, eq=False)
class TestLoader:
    """Query or gallery images in order, normalized.

    Attributes:
        images: (N, 3, H, W) uint8, in memory, mapped or on the device, or files.
        identities: (N,) int64.
        cameras: (N,) int64.
        paths: N file names.
        batch_size: Images per batch.
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].
        device: Where batches are needed.
    """

    __test__ = False  # keeps pytest from collecting it

    images: Images
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
        """Batches; the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield (B, 3, H, W) float32 on the device; the next batch is prepared in a background thread.

        Raises InputError for an image that cannot be read.
        """
        return prefetch(self._batches)

    def slice(self, first: int, last: int) -> TestLoader:
        """Take a range of images.

        Args:
            first: Index of the first image taken.
            last: Index after the last image taken.

        Returns:
            Loader of these images with the same settings.
        """
        rows = slice(first, last)
        return dataclasses.replace(
            self,
            images=slice_images(self.images, first, last),
            identities=self.identities[rows],
            cameras=self.cameras[rows],
            paths=self.paths[rows],
        )

    def shard(self, rank: int, world: int) -> TestLoader:
        """Take the consecutive batches of one process; all shards together are every batch.

        Args:
            rank: Rank of the process.
            world: Number of processes.

        Returns:
            Loader of the images of these batches.
        """
        batches = process_slice(len(self), rank, world)
        return self.slice(*(min(end * self.batch_size, len(self.images)) for end in (batches.start, batches.stop)))

    def _batches(self) -> Iterator[torch.Tensor]:
        numbers = np.arange(len(self.images))
        batches = (numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size))
        for images, corrupt in read_batches(as_image_source(self.images), batches):
            for error in corrupt.values():
                raise error
            yield normalize(to_device(images, self.device), self.mean, self.std)


def _check_images(images: Images, batch_size: int) -> None:
    as_image_source(images)
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
