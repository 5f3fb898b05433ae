"""Retrieval scores of a network: features of query and gallery, ranked in every way the protocol names."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reid.distributed import run_on_main
from reid.evaluation.features import LabeledBatches, extract_together, mean_features
from reid.model.network import ReidNetwork
from reid.ranking import evaluate, normalize_rows
from reid.records import Features, Scores

FeatureSets = dict[tuple[str, bool], tuple[Features, Features]]


def network_features(
    model: ReidNetwork,
    query: LabeledBatches,
    gallery: LabeledBatches,
    *,
    flips: Sequence[bool] = (False,),
    dtype: torch.dtype | None = None,
) -> FeatureSets:
    """(feature, flip) -> (query, gallery), for the Eigenlayer's "input" and "output" and each of `flips`.

    Several processes embed a part each; the first gets the whole, the others nothing.
    """
    sides = [
        embed(model, part, flips=flips, dtype=dtype, title=name)
        for name, part in (("query", query), ("gallery", gallery))
    ]
    return {key: (sides[0][key], sides[1][key]) for key in sides[0]}


def embed(
    model: ReidNetwork,
    images: LabeledBatches,
    *,
    flips: Sequence[bool] = (False,),
    dtype: torch.dtype | None = None,
    title: str = "",
) -> dict[tuple[str, bool], Features]:
    """(feature, flip) -> the images' features; see `network_features`."""
    plain = extract_together(model, images, dtype=dtype, title=title)
    found = {(name, False): plain[name] for name in plain} if False in flips else {}
    if True in flips:
        mirror = extract_together(model, images, mirror=True, dtype=dtype, title=f"{title} mirrored")
        found |= {(name, True): mean_features(plain[name], mirror[name]) for name in plain}
    return found


@dataclass(frozen=True)
class Variant:
    """One way to rank: a feature, with or without flip test, raw or L2-normalized, by a metric."""

    feature: str
    flip: bool
    normalized: bool
    query: Features
    gallery: Features
    metric: str = "euclidean"

    def named(self, scores: Scores) -> Scores:
        """`scores` with the name of what was ranked."""
        return dataclasses.replace(scores, **self.name)

    @property
    def name(self) -> dict[str, Any]:
        """The keys of a SCORE that tell what was ranked."""
        return {"feature": self.feature, "normalized": self.normalized, "flip": self.flip}

    def with_sides(self, query: Features, gallery: Features) -> Variant:
        """The same with other descriptors."""
        return dataclasses.replace(self, query=query, gallery=gallery)


def variants(
    features: FeatureSets, *, metric: str = "euclidean", normalized: Sequence[bool] = (False, True)
) -> Iterator[Variant]:
    """Every feature raw and, where the metric is not `cosine` anyway, with rows divided by their length.

    A side that is not in memory stays where it is: its rows are divided as they are read.
    """
    for (name, flip), (query, gallery) in features.items():
        for unit in normalized if metric == "euclidean" else (False,):
            if not unit:
                yield Variant(name, flip, False, query, gallery, metric)
            elif _in_memory(query) and _in_memory(gallery):
                yield Variant(name, flip, True, unit_rows(query), unit_rows(gallery), metric)
            else:
                yield Variant(name, flip, True, query, gallery, "cosine")


def score(
    features: FeatureSets, *, normalized: Sequence[bool] = (False, True), metric: str = "euclidean"
) -> tuple[Scores, ...]:
    """Scores of every feature, raw and with rows divided by their length."""
    return tuple(
        one.named(evaluate(one.query, one.gallery, metric=one.metric))
        for one in variants(features, normalized=normalized, metric=metric)
    )


def score_together(features: FeatureSets) -> tuple[Scores, ...]:
    """`score` on the first of several processes, for all."""
    found = run_on_main(lambda: [dataclasses.asdict(one) for one in score(features)])
    return tuple(Scores(**one) for one in found)


def _in_memory(features: Features) -> bool:
    return isinstance(features.values, np.ndarray) and not isinstance(features.values, np.memmap)


def unit_rows(features: Features) -> Features:
    """Rows of length 1. A row of zeros, which a ReLU may leave, has no direction and stays as it is: a warning."""
    directed = np.flatnonzero(features.values.any(axis=1))
    values = np.zeros_like(features.values)
    values[directed] = normalize_rows(features.values[directed])
    zero = len(values) - len(directed)
    if zero:
        warnings.warn(f"{zero} of {len(values)} feature rows are zero and have no direction", stacklevel=3)
    return dataclasses.replace(features, values=values)


def choose(scores: Sequence[Scores], *, feature: str, normalized: bool, flip: bool) -> Scores:
    """The one among `scores` that was computed so."""
    return next(s for s in scores if (s.feature, s.normalized, s.flip) == (feature, normalized, flip))
