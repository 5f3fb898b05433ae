"""One random generator for everything that is drawn, so that each thing can be drawn alone."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

VERSION = 1
"""Of the drawing: raised whenever the same seed would give other bytes."""


class Stream(IntEnum):
    """What a generator is for. The numbers are part of the seeds and start at 1, as a seed ignores zeros at its end."""

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


def generator(seed: int, thing: Stream, *key: int) -> np.random.Generator:
    """The generator of one thing; key: which one, always as many numbers for the same kind, none below 0."""
    return np.random.default_rng(np.random.SeedSequence([seed, VERSION, int(thing), *key]))
