"""Retrieval scores of a network: features of query and gallery, ranked in every way the protocol names."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from reid.features import LabelledBatches, extract, mean_features
from reid.model.network import ReidNetwork
from reid.ranking import evaluate, normalise_rows
from reid.records import Features, Scores


def network_features(
    model: ReidNetwork,
    query: LabelledBatches,
    gallery: LabelledBatches,
    *,
    flips: Sequence[bool] = (False,),
    dtype: torch.dtype | None = None,
) -> dict[tuple[str, bool], tuple[Features, Features]]:
    """(feature, flip) -> (query, gallery), for the Eigenlayer's "input" and "output" and each of `flips`."""
    plain = [extract(model, part, dtype=dtype, title=name) for name, part in (("query", query), ("gallery", gallery))]
    found: dict[tuple[str, bool], tuple[Features, Features]] = {}
    if False in flips:
        found |= {(name, False): (plain[0][name], plain[1][name]) for name in ("input", "output")}
    if True in flips:
        mirror = [
            extract(model, part, mirror=True, dtype=dtype, title=f"{name} mirrored")
            for name, part in (("query", query), ("gallery", gallery))
        ]
        for name in ("input", "output"):
            pairs = [mean_features(a[name], b[name]) for a, b in zip(plain, mirror, strict=True)]
            found[name, True] = (pairs[0], pairs[1])
    return found


def score(
    features: dict[tuple[str, bool], tuple[Features, Features]], *, normalized: Sequence[bool] = (False, True)
) -> tuple[Scores, ...]:
    """Euclidean scores of every feature, raw and with rows divided by their length."""
    found = []
    for (name, flip), (query, gallery) in features.items():
        for unit in normalized:
            pair = [_unit_rows(part) if unit else part for part in (query, gallery)]
            scores = evaluate(pair[0], pair[1])
            found.append(dataclasses.replace(scores, feature=name, normalized=unit, flip=flip))
    return tuple(found)


def _unit_rows(features: Features) -> Features:
    """Rows of length 1. A row of zeros, which a ReLU may leave, has no direction and stays as it is: a warning."""
    directed = np.flatnonzero(features.values.any(axis=1))
    values = np.zeros_like(features.values)
    values[directed] = normalise_rows(features.values[directed])
    zero = len(values) - len(directed)
    if zero:
        warnings.warn(f"{zero} of {len(values)} feature rows are zero and have no direction", stacklevel=3)
    return dataclasses.replace(features, values=values)


def choose(scores: Sequence[Scores], *, feature: str, normalized: bool, flip: bool) -> Scores:
    """The one among `scores` that was computed so."""
    return next(s for s in scores if (s.feature, s.normalized, s.flip) == (feature, normalized, flip))
