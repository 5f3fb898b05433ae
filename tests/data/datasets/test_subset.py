from __future__ import annotations

import itertools

import pytest

from reid.data.datasets.subset import hold_out_identities, subset_identities
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


def several_cameras() -> Split:
    """Ten identities with two images under each of cameras 1..identity % 4."""
    train = tuple(
        ImageRecord(f"{i}_{c}_{k}.jpg", i, c) for i in range(1, 11) for c in range(1, i % 4 + 1) for k in range(2)
    ) + tuple(ImageRecord(f"{i}_9_0.jpg", i, 9) for i in (4, 8))
    return Split("synthetic", train, (ImageRecord("q.jpg", 20, 1),), (ImageRecord("g.jpg", 20, 2),))


def test_held_out_identities_are_the_test_set() -> None:
    whole, tuned = several_cameras(), hold_out_identities(several_cameras(), 0.5)
    held = {image.identity for image in (*tuned.query, *tuned.gallery)}
    assert len(held) == 5 and held.isdisjoint(image.identity for image in tuned.train)
    assert sorted(map(str, (*tuned.train, *tuned.query, *tuned.gallery))) == sorted(map(str, whole.train))
    assert tuned.name == "synthetic-validation"
    for image in tuned.query:
        assert any(g.identity == image.identity and g.camera != image.camera for g in tuned.gallery)
    pairs = [(image.identity, image.camera) for image in tuned.query]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(i, c) for i in held for c in range(1, i % 4 + 1) if i % 4 > 1}
    assert hold_out_identities(whole, 0) is whole


def test_a_validation_set_that_measures_nothing_is_refused() -> None:
    for fraction, reason in ((0.1, "holds out 1 of 10"), (0.9, "leave at least 2")):
        with pytest.raises(InputError, match=reason):
            hold_out_identities(several_cameras(), fraction)
    with pytest.raises(InputError, match="no held-out image has a match"):
        hold_out_identities(split(10), 0.5)  # one camera
