"""Seeds and the states of the random generators."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def seed_from(*parts: object) -> int:
    """A seed in [0, 2**63) for one use, from what names it: (seed, stage, round, epoch), say.

    An epoch seeded so is the same whatever ran before it, which is what makes a resumed run equal to an unbroken one.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices) and the global generators of NumPy and Python, which libraries may use."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_states() -> dict[str, Any]:
    """Where the generators of `seed_everything` stand, as tensors and plain values."""
    _, keys, *numpy = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *numpy],
        "python": [version, list(numbers), gauss],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Take over what `random_states` gave; devices that are not there any more are left out."""
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    keys, *numpy = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *numpy))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
