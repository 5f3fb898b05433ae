"""The people behind a classifier's weight vectors: whose vectors are alike, and what these people look like.

The weight vector of an identity is its template in the embedding. Sun et al. 2017 argue from it (figure 1): people who
look alike get vectors that point the same way, and distances between features then count the shared direction twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reid.diagnostics.gram import cosines, most_correlated
from reid.errors import InputError
from reid.model.network import ReidNetwork
from reid.records import ImageRecord, Split

PAIRS = 20


def classifier_name(model: ReidNetwork) -> str:
    """The weight whose rows are the identities: the classifier's, or the Eigenlayer's where that is the last layer."""
    return "eigenlayer.weight" if model.classifier is None else "classifier.weight"


def similar_identities(weight: Tensor, split: Split | None, count: int = PAIRS) -> dict[str, Any]:
    """The entry "identities" of a classifier in `diagnosis.json`: pairs, as `identity_pairs` gives them, and dataset.

    split: what the classifier was trained on, None where that is not known; its name is the dataset then.
    """
    labels = split.train_labels() if split else None
    return {"dataset": split.name if split else None, "pairs": identity_pairs(weight, labels, count)}


def identity_pairs(weight: Tensor, labels: Mapping[int, int] | None = None, count: int = PAIRS) -> list[dict[str, Any]]:
    """The `count` pairs of identities with the most similar weight vectors, most similar first.

    weight: (classes, K) of the classifier, a row an identity. labels: identity -> row (`Split.train_labels`), None
    where no dataset tells: the identities are then called by their rows. Unlike `weights.diagnose`, which asks how
    correlated vectors are and takes |cos|, this asks who looks alike, so a negative cosine is no likeness.
    An entry holds cos, first and second (identities), first_row and second_row.
    Raises InputError where the classifier has another number of rows than there are identities, or is not finite.
    """
    if weight.ndim != 2 or not bool(torch.isfinite(weight).all()):
        raise InputError(f"a classifier is a finite (classes, K) matrix; this one, {tuple(weight.shape)}, is not")
    names = list(range(len(weight)))
    if labels is not None:
        if sorted(labels.values()) != names:
            raise InputError(
                f"the classifier tells {len(weight)} identities apart and the dataset trains on {len(labels)}: give "
                "the dataset that the network was trained on"
            )
        names = [identity for identity, _ in sorted(labels.items(), key=lambda entry: entry[1])]
    pairs = most_correlated(cosines(weight.detach().to(torch.float64).T[None]), count, signed=True)
    return [
        {
            "cos": pair["cos"],
            "first": names[pair["first"]],
            "second": names[pair["second"]],
            "first_row": pair["first"],
            "second_row": pair["second"],
        }
        for pair in pairs
    ]


def identity_images(
    split: Split, pairs: Sequence[Mapping[str, Any]], *, people: int = 40, each: int = 2
) -> dict[int, list[ImageRecord]]:
    """Training images of the identities in `pairs`, `people` of them at most: `each`, by different cameras first."""
    wanted = list(dict.fromkeys(pair[side] for pair in pairs for side in ("first", "second")))[:people]
    found: dict[int, list[ImageRecord]] = {identity: [] for identity in wanted}
    for image in split.train:
        if image.identity in found:
            found[image.identity].append(image)
    return {identity: _by_cameras(images)[:each] for identity, images in found.items()}


def _by_cameras(images: list[ImageRecord]) -> list[ImageRecord]:
    """The first image by every camera, then the second by every camera, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for image in images:
        turns.append(seen.get(image.camera, 0))
        seen[image.camera] = turns[-1] + 1
    order = sorted(range(len(images)), key=lambda place: (turns[place], images[place].camera))
    return [images[place] for place in order]
