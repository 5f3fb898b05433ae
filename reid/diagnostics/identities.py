"""Identities whose classifier weight vectors are similar, and images of them.

The weight vector of an identity is its template in the embedding. Sun et al. 2017 (figure 1) argue that identities that
look alike get vectors of similar direction, so that distances between features count the shared direction twice.
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
    """Get the name of the weight whose rows are identities.

    Args:
        model: Network with or without a classifier after the Eigenlayer.

    Returns:
        Name of the classifier's weight, or of the Eigenlayer's if that is the last layer.
    """
    return "eigenlayer.weight" if model.classifier is None else "classifier.weight"


def similar_identities(weight: Tensor, split: Split | None, count: int = PAIRS) -> dict[str, Any]:
    """Build the entry "identities" of a classifier in `diagnosis.json`.

    Args:
        weight: (classes, K) of the classifier.
        split: The dataset on which the classifier was trained, None if unknown.
        count: Maximum number of pairs.

    Returns:
        "dataset", the name or None, and "pairs" as `identity_pairs` returns them.

    Raises:
        InputError: If `identity_pairs` raises it.
    """
    labels = split.train_labels() if split else None
    return {"dataset": split.name if split else None, "pairs": identity_pairs(weight, labels, count)}


def identity_pairs(weight: Tensor, labels: Mapping[int, int] | None = None, count: int = PAIRS) -> list[dict[str, Any]]:
    """Find the pairs of identities with the most similar weight vectors.

    Unlike `weights.diagnose_layer`, which uses |cos|, negative cosines are not treated as similarity here.

    Args:
        weight: (classes, K) of the classifier, a row per identity.
        labels: Identity to row, as `Split.train_labels` returns it; None to name identities by their row.
        count: Maximum number of pairs.

    Returns:
        Pairs with "cos", "first", "second" (identities), "first_row" and "second_row"; most similar first.

    Raises:
        InputError: If the number of rows is not the number of identities, or the weight is not a finite matrix.
    """
    if weight.ndim != 2 or not bool(torch.isfinite(weight).all()):
        raise InputError(f"a classifier must be a finite (classes, K) matrix; this one has shape {tuple(weight.shape)}")
    names = list(range(len(weight)))
    if labels is not None:
        if sorted(labels.values()) != names:
            raise InputError(
                f"the classifier has {len(weight)} identities and the dataset trains on {len(labels)}: give the "
                "dataset on which the network was trained"
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
    split: Split, pairs: Sequence[Mapping[str, Any]], *, max_identities: int = 40, images_per_identity: int = 2
) -> dict[int, list[ImageRecord]]:
    """Choose training images of the identities in `pairs`, from different cameras first.

    Args:
        split: Dataset from whose training images to choose.
        pairs: Value returned by `identity_pairs`.
        max_identities: Maximum number of identities.
        images_per_identity: Maximum number of images each.

    Returns:
        Images by identity.
    """
    chosen = list(dict.fromkeys(pair[side] for pair in pairs for side in ("first", "second")))[:max_identities]
    images: dict[int, list[ImageRecord]] = {identity: [] for identity in chosen}
    for image in split.train:
        if image.identity in images:
            images[image.identity].append(image)
    return {identity: _alternate_cameras(own)[:images_per_identity] for identity, own in images.items()}


def _alternate_cameras(images: list[ImageRecord]) -> list[ImageRecord]:
    """Order images: the first of each camera, then the second of each camera, and so on."""
    counts: dict[int, int] = {}
    number_in_camera = []
    for image in images:
        number_in_camera.append(counts.get(image.camera, 0))
        counts[image.camera] = number_in_camera[-1] + 1
    order = sorted(range(len(images)), key=lambda index: (number_in_camera[index], images[index].camera))
    return [images[index] for index in order]
