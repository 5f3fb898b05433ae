"""Seeds and the states of the random generators."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def seed_from(*parts: object) -> int:
    """Derive a seed for one use.

    An epoch seeded this way does not depend on what ran before it, so a resumed run equals an uninterrupted one.

    Args:
        *parts: What names the use, such as (seed, stage, round, epoch).

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices) and the global generators of NumPy and Python, which libraries may use.

    Args:
        seed: An integer of up to 63 bits.
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_states() -> dict[str, Any]:
    """Return the states of the generators that `seed_everything` seeds.

    Returns:
        Tensors and plain values by library.
    """
    _, keys, *numpy = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *numpy],
        "python": [version, list(numbers), gauss],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned.

    Args:
        states: States of devices that this machine does not have are skipped.
    """
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    keys, *numpy = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *numpy))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
