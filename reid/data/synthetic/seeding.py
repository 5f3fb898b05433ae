"""One random stream per generated object, so that each can be generated independently of the others."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

VERSION = 1
"""Version of the generator, increased whenever the same seed would give other bytes."""


class Stream(IntEnum):
    """Kind of object a random stream is for.

    The numbers are part of the seeds and start at 1, as a seed sequence ignores trailing zeros.
    """

    PLAN = 1
    TILES = 2
    CAMERA = 3
    IDENTITY = 4
    STRANGER = 5
    WALK = 6
    IMAGE = 7
    LANDMARK = 8
    VIEW = 9
    LISTS = 10


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Create the random generator of one object.

    Args:
        seed: Seed of the dataset.
        stream: Kind of the object.
        *key: Which one, as non-negative numbers; always equally many for the same kind.

    Returns:
        Generator that depends only on the arguments.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, VERSION, int(stream), *key]))
