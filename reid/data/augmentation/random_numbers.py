"""Random numbers for augmentation, determined only by the epoch's seed and the image.

They depend neither on the order of the images, nor on the batch they are in, nor on the number of processes. Each image
reads its own stretch of one counter-based stream (Philox, Salmon et al. 2011), so that no number has to be generated
before another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

ERASING_ATTEMPTS = 20

# Columns of a random number table. Each step has its own columns, so enabling one leaves the numbers of the others.
FLIP = 0
CROP = slice(1, 3)
ERASE = 3
ERASE_POSITION = slice(4, 6)
JITTER = 6
FACTORS = slice(7, 11)
ORDER = 11
POLICY = 12
AREA = slice(13, 13 + ERASING_ATTEMPTS)
ASPECT = slice(13 + ERASING_ATTEMPTS, 13 + 2 * ERASING_ATTEMPTS)
COLUMNS = ASPECT.stop


def random_table(seed: int, rows: Sequence[int], times: Sequence[int]) -> np.ndarray:
    """Generate the random numbers of a batch.

    Args:
        seed: Seed of the epoch.
        rows: (B,) numbers of the images in the training set.
        times: (B,) how often each image was seen before in this epoch. A sampler may show an image more than once in
            an epoch, and each time it is augmented differently.

    Returns:
        (B, COLUMNS) float64 in [0, 1).
    """
    bits = np.random.Philox(key=seed % 2**64)
    generator, state = np.random.Generator(bits), bits.state
    counter = state["state"]["counter"]
    table = np.empty((len(rows), COLUMNS))
    for numbers, row, time in zip(table, rows, times, strict=True):
        counter[:] = 0, time, row, 0
        # A new generator for every image would take four times as long.
        bits.state = state
        generator.random(out=numbers)
    return table


def times_seen(rows: Iterable[int], seen: dict[int, int]) -> list[int]:
    """Count how often each image was seen before in this epoch.

    Args:
        rows: Numbers of the images of a batch.
        seen: Image number -> times seen so far; updated in place.

    Returns:
        One count per row, 0 for an image that is seen for the first time.
    """
    times = []
    for row in rows:
        times.append(seen.get(row, 0))
        seen[row] = times[-1] + 1
    return times
