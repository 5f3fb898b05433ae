"""Retrieval scores of a network: features of query and gallery, in all variants that are scored."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.data.loading.loaders import TestLoader
from reid.distributed import broadcast, is_main_process
from reid.evaluation.features import FEATURES, Network, extract_together, mean_features
from reid.ranking import evaluate, normalize_rows
from reid.ranking.arrays import on_host
from reid.records import Features, Scores

logger = logging.getLogger(__name__)

# (feature, flip) -> features of some images.
VariantFeatures = dict[tuple[str, bool], Features]
# (feature, flip) -> (query, gallery).
FeatureSets = dict[tuple[str, bool], tuple[Features, Features]]


def network_features(
    model: Network,
    query: TestLoader,
    gallery: TestLoader,
    *,
    flips: Sequence[bool] = (False,),
    names: Sequence[str] = FEATURES,
) -> FeatureSets:
    """Embed query and gallery by all processes together.

    Args:
        model: Network with the same weights on every process, or an engine that runs it.
        query: Loader of the query images.
        gallery: Loader of the gallery images.
        flips: Whether to average with the mirrored images; several values give several variants.
        names: Features to keep, such as `distinct_features` of the network.

    Returns:
        On the main process the features of the Eigenlayer's "input" and "output" for each of `flips`, on all others
        {}.
    """
    sides = [embed(model, images, flips=flips, title=name) for name, images in (("query", query), ("gallery", gallery))]
    return {key: (sides[0][key], sides[1][key]) for key in sides[0] if key[0] in names}


def embed(
    model: Network,
    images: TestLoader,
    *,
    flips: Sequence[bool] = (False,),
    title: str = "",
) -> VariantFeatures:
    """Embed images by all processes together.

    Args:
        model: Network with the same weights on every process, or an engine that runs it.
        images: Images with labels.
        flips: Whether to average with the mirrored images.
        title: Title of the progress bar.

    Returns:
        The features as in `network_features`.
    """
    plain = extract_together(model, images, title=title)
    features = {(name, False): plain[name] for name in plain} if False in flips else {}
    if True in flips:
        mirror = extract_together(model, images, mirror=True, title=f"{title} mirrored")
        features |= {(name, True): mean_features(plain[name], mirror[name]) for name in plain}
    return features


@dataclass(frozen=True)
class Variant:
    """Features as they are ranked.

    Attributes:
        feature: "input" or "output" of the Eigenlayer.
        flip: Whether they are averaged with those of the mirrored images.
        normalized: Whether rows are divided by their length.
        query: Features of the queries.
        gallery: Features of the gallery.
        metric: "euclidean" or "cosine".
    """

    feature: str
    flip: bool
    normalized: bool
    query: Features
    gallery: Features
    metric: str = "euclidean"

    def named(self, scores: Scores) -> Scores:
        """Add the name of the variant to scores.

        Args:
            scores: Scores of this variant.

        Returns:
            Copy of `scores` with the keys of `name`.
        """
        return dataclasses.replace(scores, **self.name)

    @property
    def name(self) -> dict[str, Any]:
        """The keys of a score that identify the variant."""
        return {"feature": self.feature, "normalized": self.normalized, "flip": self.flip}


def variants(
    features: FeatureSets, *, metric: str = "euclidean", normalized: Sequence[bool] = (False, True)
) -> Iterator[Variant]:
    """Generate every feature raw and, unless the metric is "cosine", with rows divided by their length.

    A side that is not in memory stays on disk: its rows are divided when they are read.

    Args:
        features: Features of query and gallery.
        metric: "euclidean" or "cosine".
        normalized: Which of the two to generate.

    Yields:
        One variant per feature, flip and normalization.
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
    """Score every feature, raw and with rows divided by their length.

    Args:
        features: Features of query and gallery.
        normalized: Which of the two to score.
        metric: "euclidean" or "cosine".

    Returns:
        Scores of each variant.
    """
    return tuple(
        one.named(evaluate(one.query, one.gallery, metric=one.metric))
        for one in variants(features, normalized=normalized, metric=metric)
    )


def score_together(features: FeatureSets) -> tuple[Scores, ...]:
    """Score on the main process and send the scores to all.

    Args:
        features: Features on the main process, {} on all others.

    Returns:
        Scores of each variant, with the values of every query on the main process only.
    """
    scores = score(features) if is_main_process() else ()
    entries = broadcast([dataclasses.asdict(one.without_queries()) for one in scores])
    return scores or tuple(Scores(**entry) for entry in entries)


def _in_memory(features: Features) -> bool:
    return isinstance(features.values, np.ndarray) and not isinstance(features.values, np.memmap)


def warn_of_equal_rows(query: Features, gallery: Features) -> None:
    """Warn of queries whose row equals that of a match: the same image may be in both.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery; those that are not in memory are not compared.
    """
    if not (_in_memory(query) and _in_memory(gallery)):
        return
    persons = set(query.identities.tolist())
    cameras: dict[tuple[int, int], set[int]] = {}
    for person, camera, row in zip(gallery.identities.tolist(), gallery.cameras.tolist(), gallery.values, strict=True):
        if person in persons:
            cameras.setdefault((person, hash(row.tobytes())), set()).add(camera)
    equal = sum(
        bool(cameras.get((person, hash(row.tobytes())), set()) - {camera})
        for person, camera, row in zip(query.identities.tolist(), query.cameras.tolist(), query.values, strict=True)
    )
    if equal:
        logger.warning(
            "%d of %d queries have the same features as a match in the gallery: are these the same images? Without "
            "cameras, give an image the same camera in both, which leaves it out of its own ranking",
            equal,
            len(query.values),
        )


def unit_rows(features: Features) -> Features:
    """Divide rows by their length.

    A row of zeros, such as after a ReLU, has no direction and stays zero, with a warning.

    Args:
        features: Features in memory or on a GPU.

    Returns:
        Features with rows of length 1, in memory.
    """
    features = on_host(features)
    directed = np.flatnonzero(features.values.any(axis=1))
    values = np.zeros(features.values.shape, np.float32)
    values[directed] = normalize_rows(features.values[directed])
    zero = len(values) - len(directed)
    if zero:
        warnings.warn(f"{zero} of {len(values)} feature rows are zero and have no direction", stacklevel=3)
    return dataclasses.replace(features, values=values)


def choose_features(features: FeatureSets, *, feature: str, normalized: bool, flip: bool) -> tuple[Features, Features]:
    """Select the features of one variant, as they are ranked.

    Args:
        features: Features in memory.
        feature: "input" or "output".
        normalized: Whether to divide rows by their length.
        flip: Whether to take those averaged with the mirrored images.

    Returns:
        Query and gallery.
    """
    query, gallery = features[feature, flip]
    return (unit_rows(query), unit_rows(gallery)) if normalized else (query, gallery)


def choose(scores: Sequence[Scores], *, feature: str, normalized: bool, flip: bool) -> Scores:
    """Select the scores of one variant.

    Args:
        scores: Scores of several variants.
        feature: "input" or "output".
        normalized: Whether rows were divided by their length.
        flip: Whether features were averaged with those of the mirrored images.

    Returns:
        The scores of that variant.
    """
    return next(s for s in scores if (s.feature, s.normalized, s.flip) == (feature, normalized, flip))
