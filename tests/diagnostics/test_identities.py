"""Identities with similar classifier vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from composed_network import compose
from torch import nn

from reid.diagnostics.identities import classifier_name, identity_images, identity_pairs, similar_identities
from reid.errors import InputError
from reid.records import ImageRecord, Split

IDENTITIES = (4, 7, 11, 30, 31)


def drawn_split() -> Split:
    train = tuple(
        ImageRecord(f"{identity}_c{camera}_{shot}.jpg", identity, camera)
        for identity in IDENTITIES
        for shot in range(3)
        for camera in (2, 1)
    )
    return Split("drawn", train, (ImageRecord("q.jpg", 1, 1),), (ImageRecord("g.jpg", 1, 2),))


def test_pairs_against_loops() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(5, 6))
    weight[3] = weight[1] + 0.1 * random.normal(size=6)
    weight[4] = -3 * weight[0]
    found = identity_pairs(torch.from_numpy(weight), drawn_split().train_labels(), 4)
    pairs = []
    for i in range(5):
        for j in range(i + 1, 5):
            cosine = weight[i] @ weight[j] / np.linalg.norm(weight[i]) / np.linalg.norm(weight[j])
            pairs.append((cosine, IDENTITIES[i], IDENTITIES[j], i, j))
    pairs.sort(reverse=True)
    keys = ("first", "second", "first_row", "second_row")
    assert [tuple(pair[key] for key in keys) for pair in found] == [pair[1:] for pair in pairs[:4]]
    np.testing.assert_allclose([pair["cos"] for pair in found], [pair[0] for pair in pairs[:4]])
    assert (found[0]["first"], found[0]["second"]) == (7, 30)
    # Opposite vectors are correlated, but no likeness.
    assert identity_pairs(torch.from_numpy(weight), None, 99)[-1] == {
        "cos": pytest.approx(-1), "first": 0, "second": 4, "first_row": 0, "second_row": 4
    }  # fmt: skip


def test_the_dataset_must_fit_the_classifier() -> None:
    with pytest.raises(InputError, match="has 3 identities and the dataset trains on 5"):
        identity_pairs(torch.randn(3, 4), drawn_split().train_labels())
    with pytest.raises(InputError, match="finite"):
        identity_pairs(torch.full((3, 4), torch.nan))


def test_entry_of_the_diagnosis() -> None:
    entry = similar_identities(torch.randn(5, 8), drawn_split())
    assert entry["dataset"] == "drawn" and len(entry["pairs"]) == 10
    assert {pair["first"] for pair in entry["pairs"]} <= set(IDENTITIES)
    assert similar_identities(torch.randn(5, 8), None)["dataset"] is None


def test_pictures_come_from_different_cameras_and_are_bounded() -> None:
    pairs = [{"first": 31, "second": 7}, {"first": 7, "second": 4}]
    found = identity_images(drawn_split(), pairs, max_identities=2, images_per_identity=3)
    assert {identity: [image.path for image in images] for identity, images in found.items()} == {
        31: ["31_c1_0.jpg", "31_c2_0.jpg", "31_c1_1.jpg"],
        7: ["7_c1_0.jpg", "7_c2_0.jpg", "7_c1_1.jpg"],
    }


def test_which_weight_holds_the_identities() -> None:
    last = compose("resnet18", 5, classifier=None)
    assert classifier_name(last) == "eigenlayer.weight"
    usual = compose("resnet18", 5)
    assert isinstance(usual.classifier, nn.Linear)
    assert len(usual.state_dict()[classifier_name(usual)]) == 5
