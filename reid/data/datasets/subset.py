"""Subsets of the training identities, for experiments with less data."""

from __future__ import annotations

import dataclasses
import math

from reid.errors import InputError
from reid.records import Split


def subset_identities(split: Split, fraction: float) -> Split:
    """Keep ⌈fraction · n⌉ of the n training identities, evenly spaced in their order and thus always the same ones.

    Args:
        split: Dataset with all training identities.
        fraction: Fraction of the identities to keep, in (0, 1].

    Returns:
        The split with fewer training images; query and gallery are unchanged.

    Raises:
        InputError: If fewer than two identities are left.
    """
    if fraction == 1:
        return split
    identities = list(split.train_labels())
    count = math.ceil(fraction * len(identities))
    if count < 2:
        raise InputError(
            f"DATASETS.IDENTITIES {fraction} leaves {count} of {len(identities)} training identities; at least 2 are "
            "required"
        )
    kept = {identities[i * len(identities) // count] for i in range(count)}
    train = tuple(image for image in split.train if image.identity in kept)
    return dataclasses.replace(split, train=train)
