"""A part of the training persons, for comparisons that need not see them all."""

from __future__ import annotations

import dataclasses
import math

from reid.errors import InputError
from reid.records import Split


def subset_identities(split: Split, share: float) -> Split:
    """The split with ⌈share · n⌉ of its n training identities, evenly spread over their order: always the same ones.

    share: in (0, 1]. Query and gallery stay whole. Raises InputError where fewer than two identities are left.
    """
    if share == 1:
        return split
    identities = list(split.train_labels())
    count = math.ceil(share * len(identities))
    if count < 2:
        raise InputError(
            f"DATASETS.IDENTITIES {share} leaves {count} of {len(identities)} training identities; 2 or more are needed"
        )
    kept = {identities[i * len(identities) // count] for i in range(count)}
    train = tuple(image for image in split.train if image.identity in kept)
    return dataclasses.replace(split, train=train)
