from __future__ import annotations

import itertools

import pytest

from reid.data.datasets.subset import subset_identities
from reid.errors import InputError
from reid.records import ImageRecord, Split


def split(identities: int) -> Split:
    train = tuple(ImageRecord(f"{i}_{k}.jpg", 3 * i + 5, 1) for i in range(identities) for k in range(i % 3 + 1))
    return Split("synthetic", train, (ImageRecord("q.jpg", 1, 1),), (ImageRecord("g.jpg", 1, 2),))


@pytest.mark.parametrize(("share", "kept"), [(0.5, 5), (0.31, 4), (0.99, 10), (0.2, 2)])
def test_identities_are_evenly_spaced_and_keep_their_images(share: float, kept: int) -> None:
    whole, part = split(10), subset_identities(split(10), share)
    identities = sorted(part.train_labels())
    assert len(identities) == kept
    gaps = [b - a for a, b in itertools.pairwise(identities)]
    assert max(gaps) - min(gaps) <= 3  # neighbors are 3 apart in number
    assert part.train == tuple(image for image in whole.train if image.identity in identities)
    assert (part.query, part.gallery) == (whole.query, whole.gallery)
    assert subset_identities(split(10), share) == part


def test_the_full_set_is_unchanged_and_too_few_are_reported() -> None:
    whole = split(4)
    assert subset_identities(whole, 1.0) is whole
    with pytest.raises(InputError, match=r"DATASETS.IDENTITIES 0.2 leaves 1 of 4"):
        subset_identities(whole, 0.2)
