"""Random numbers of an image in an epoch: they follow from the epoch's seed and the image alone.

Who asks for them, in which order, beside which other images and in how many processes has no say. Each image reads its
own stretch of one counter-based stream (Philox, Salmon et al. 2011), so no number has to be drawn before another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

ERASING_TRIES = 20

# Columns of a table of draws. Each step owns its columns, so switching one on leaves the numbers of the others.
FLIP = 0
CROP = slice(1, 3)
ERASE = 3
PLACE = slice(4, 6)
JITTER = 6
FACTORS = slice(7, 11)
ORDER = 11
POLICY = 12
AREA = slice(13, 13 + ERASING_TRIES)
ASPECT = slice(13 + ERASING_TRIES, 13 + 2 * ERASING_TRIES)
COLUMNS = ASPECT.stop


def draw(seed: int, rows: Sequence[int], times: Sequence[int]) -> np.ndarray:
    """(B, COLUMNS) float64 in [0, 1) for images number `rows`, each seen `times` times before in this epoch.

    A sampler may show an image more than once in an epoch, and then not in the same guise.
    """
    bits = np.random.Philox(key=seed % 2**64)
    generator, state = np.random.Generator(bits), bits.state
    counter = state["state"]["counter"]
    table = np.empty((len(rows), COLUMNS))
    for numbers, row, time in zip(table, rows, times, strict=True):
        counter[:] = 0, time, row, 0
        # A new object for every image would take four times as long.
        bits.state = state
        generator.random(out=numbers)
    return table


def times_seen(rows: Iterable[int], seen: dict[int, int]) -> list[int]:
    """How often each image came before in this epoch, counted on in `seen`."""
    times = []
    for row in rows:
        times.append(seen.get(row, 0))
        seen[row] = times[-1] + 1
    return times
