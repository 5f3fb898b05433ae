"""From images, decoded or not, to normalized batches on the device."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from reid.data.augmentation.augment import augment
from reid.data.augmentation.jitter import NO_JITTER, Jitter
from reid.data.augmentation.random_numbers import draw, times_seen
from reid.data.images.decode import CorruptImage
from reid.data.images.normalization import normalize
from reid.data.images.pixels import DecodedImages, Images, checked, read, rows_of, to_device
from reid.data.loading.prefetch import prefetched
from reid.data.loading.samplers import Sampler, batch_count, identity_batches, mined_batches, share, shuffled_batches
from reid.distributed import part_of
from reid.errors import InputError

logger = logging.getLogger(__name__)

Batch = tuple[torch.Tensor, torch.Tensor]
SHUFFLED = Sampler()


@dataclass(frozen=True, eq=False)
class TrainLoader:
    """Training batches out of images that are decoded before or when they are wanted; the pixels are the same.

    images: (N, 3, H, W) uint8, in memory, mapped or on the device, or files. labels: (N,) int64, classes from 0. flip,
    erasing: probabilities; pad: pixels; mean, std: of the RGB channels in [0, 1]. sampler: which images meet in a
    batch. paths: N file names, or empty where unknown. policy: of `reid.data.augmentation.policy`, or "none". corrupt: what an image
    that cannot be read is, an "error", or left out and counted, "skip": the next image of its identity stands in.
    left_out: what is wrong with the images that were, by number.
    """

    images: Images
    labels: np.ndarray
    batch_size: int
    flip: float
    pad: int
    erasing: float
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device | str
    sampler: Sampler = SHUFFLED
    paths: Sequence[str] = ()
    jitter: Jitter = NO_JITTER
    policy: str = "none"
    corrupt: str = "error"
    left_out: dict[int, str] = field(default_factory=dict, init=False)

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
        len(self)  # raises where no batch can be filled
        if isinstance(self.images, DecodedImages):
            for number, reason in sorted(self.images.broken.items()):
                self._leave_out(number, CorruptImage(reason))

    def __len__(self) -> int:
        """Batches per epoch."""
        return batch_count(self.sampler, torch.from_numpy(self.labels), self.batch_size)

    def shares(self, world: int) -> tuple[int, ...]:
        """Images that each of `world` processes gets of a batch. Raises InputError where one would get none."""
        full = self.batch_size if self.sampler.group > 1 else min(self.batch_size, len(self.images))
        whole = torch.arange(full)
        return tuple(len(share(whole, self.sampler.group, rank, world)) for rank in range(world))

    @property
    def mines(self) -> bool:
        """Whether `epoch` asks for descriptors."""
        return self.sampler.name == "mined"

    def epoch(
        self, seed: int, descriptors: torch.Tensor | None = None, start: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """One pass: (B, 3, H, W) float32 augmented and normalized, (B,) int64, both on the device.

        The order follows from `seed` and, of a sampler that mines, from descriptors: (N, D) on the CPU, of the images
        in their order. How an image is augmented follows from `seed`, its number and how often the pass has shown it
        before. start: the first batch given; those before it are not made. rank, world: this process and their number;
        each gets its share of every batch (see `share`), and the shares together are the batch of a single process.
        The next batch is made in a background thread, which ends with the iteration, also where that is left early.
        """
        return prefetched(lambda: self._augmented(seed, self._parts(seed, descriptors, start, rank, world)))

    def names(
        self, seed: int, batch: int, descriptors: torch.Tensor | None = None, *, rank: int = 0, world: int = 1
    ) -> tuple[str, ...]:
        """The files of one batch of `epoch(seed, descriptors)`; none where `paths` are unknown."""
        index, _ = next(self._parts(seed, descriptors, batch, rank, world))
        return tuple(self.paths[i] for i in index.tolist()) if self.paths else ()

    def sample(self, count: int, seed: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """`count` training images (all where there are fewer), the same for the same seed, without augmentation.

        rank, world: this process and their number; each gets neighboring batches, all together every one.
        """
        batches = self.sample_index(count, seed).split(self.batch_size)
        return prefetched(lambda: self._plain(batches[part_of(len(batches), rank, world)]))

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

    def _parts(
        self, seed: int, descriptors: torch.Tensor | None, start: int, rank: int, world: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of every batch from `start` on, a process's share: the images' numbers and how often each came before."""
        seen: dict[int, int] = {}
        for number, index in enumerate(self._batches(torch.Generator().manual_seed(seed), descriptors)):
            # Counted over the whole batch, so that an image's numbers do not depend on who gets it.
            times = torch.tensor(times_seen(index.tolist(), seen), dtype=torch.int64)
            if number >= start:
                mine = [share(part, self.sampler.group, rank, world).numpy() for part in (index, times)]
                yield mine[0], mine[1]

    def _augmented(self, seed: int, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
        ours, asked = itertools.tee(parts)
        for (index, times), (images, rows) in zip(ours, self._read(index for index, _ in asked), strict=True):
            augmented = augment(
                images,
                draw(seed, index.tolist(), times.tolist()),
                flip=self.flip,
                pad=self.pad,
                erasing=self.erasing,
                mean=self.mean,
                std=self.std,
                jitter=self.jitter,
                policy=self.policy,
            )
            yield augmented, self._labels_of(rows)

    def _plain(self, batches: Sequence[torch.Tensor]) -> Iterator[Batch]:
        for images, rows in self._read(part.numpy() for part in batches):
            yield normalize(images, self.mean, self.std), self._labels_of(rows)

    def _labels_of(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.labels[rows]).to(self.device)

    def _read(self, batches: Iterator[np.ndarray]) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """(B, 3, H, W) uint8 on the device and the images' numbers, those that stand in among them."""
        ours, asked = itertools.tee(batches)
        for index, (images, broken) in zip(ours, read(checked(self.images), asked), strict=True):
            rows = index.copy()
            for place, error in broken.items():
                self._leave_out(int(index[place]), error)
                rows[place], images[place] = self._stand_in(int(index[place]))
            yield to_device(images, self.device), rows

    def _leave_out(self, number: int, error: CorruptImage) -> None:
        """Count an image that cannot be read. Raises the error where it is one."""
        if self.corrupt == "error":
            raise error
        if number not in self.left_out:
            self.left_out[number] = str(error)
            logger.warning("%s; left out of the training, %d so far", error, len(self.left_out))

    def _stand_in(self, number: int) -> tuple[int, torch.Tensor]:
        """The next readable image of the same identity, else the next at all, beginning again behind the last."""
        following = np.roll(np.arange(len(self.labels)), -number)[1:]
        same = self.labels[following] == self.labels[number]
        for candidate in np.concatenate([following[same], following[~same]]).tolist():
            if candidate in self.left_out:
                continue
            images, broken = next(read(checked(self.images), iter([np.array([candidate])])))
            if not broken:
                return candidate, images[0]
            self._leave_out(candidate, broken[0])
        raise InputError(f"none of the {len(self.labels)} training images can be read; is the dataset damaged?")


@dataclass(frozen=True, eq=False)
class TestLoader:
    """Query or gallery images in their order, normalized and nothing else.

    images: (N, 3, H, W) uint8, or files; identities, cameras: (N,) int64; paths: N file names.
    """

    __test__ = False  # no test class, whatever its name says to pytest

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
        """Batches, the last one perhaps smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """(B, 3, H, W) float32 on the device; the next batch is made in a background thread.

        Raises InputError for an image that cannot be read.
        """
        return prefetched(self._batches)

    def between(self, first: int, last: int) -> TestLoader:
        """The images from number `first` to before `last`."""
        rows = slice(first, last)
        return dataclasses.replace(
            self,
            images=rows_of(self.images, first, last),
            identities=self.identities[rows],
            cameras=self.cameras[rows],
            paths=self.paths[rows],
        )

    def share(self, rank: int, world: int) -> TestLoader:
        """Neighboring batches for process `rank` of `world`; all shares together are every batch."""
        batches = part_of(len(self), rank, world)
        return self.between(*(min(end * self.batch_size, len(self.images)) for end in (batches.start, batches.stop)))

    def _batches(self) -> Iterator[torch.Tensor]:
        numbers = np.arange(len(self.images))
        batches = (numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size))
        for images, broken in read(checked(self.images), batches):
            for error in broken.values():
                raise error
            yield normalize(to_device(images, self.device), self.mean, self.std)


def _check_images(images: Images, batch_size: int) -> None:
    checked(images)
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
