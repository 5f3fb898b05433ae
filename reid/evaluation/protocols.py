"""Everything an evaluation may ask of features, as the content of `evaluation.json`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid.data.datasets.revisited import RevisitedGroundTruth, read_revisited
from reid.errors import InputError, unknown_name
from reid.evaluation.retrieval import FeatureSets, Variant, score, unit_rows, variants
from reid.evaluation.whitening import WHITENINGS, Whiten, Whitening, whiten_rows
from reid.io.atomic import write_bytes
from reid.io.feature_files import read_matrix_folder, read_training_features
from reid.ranking import evaluate, normalize_rows
from reid.ranking.expansion import augment_gallery, expand_queries
from reid.ranking.protocols.multi_query import POOLINGS, own_camera_images, pool_queries
from reid.ranking.protocols.revisited import evaluate_revisited
from reid.ranking.protocols.single_shot import evaluate_single_shot
from reid.ranking.protocols.verification import verify
from reid.ranking.reranking.rerank import rerank_ranking
from reid.ranking.search import top_k
from reid.records import Features, score_list

PROTOCOLS = ("market", "single-shot", "multi-query")
# Name -> as it is written in tables.
EXPANSIONS = {"aqe": "AQE", "alpha": "alpha-QE"}
# Of each feature set, other images: those that multi-query pools, or training images.
Pools = dict[tuple[str, bool], Features]


@dataclass(frozen=True)
class Wanted:
    """What to compute beside the Market-1501 protocol.

    protocol: one of `PROTOCOLS`. repeats, seed: of the draws of `single-shot`. roc: the pairs' ROC curve. rerank: the
    arguments of k-reciprocal re-ranking, None for none. expand: one of `EXPANSIONS`, or "" for none. augment: the
    gallery's rows are replaced too, before the queries. neighbors, alpha: of both; 0 neighbors: 5 for aqe, else 10.
    whiten: None for none.
    """

    metric: str = "euclidean"
    protocol: str = "market"
    repeats: int = 100
    seed: int = 0
    roc: bool = False
    rerank: dict[str, Any] | None = None
    expand: str = ""
    augment: bool = False
    neighbors: int = 0
    alpha: float = 3.0
    whiten: Whiten | None = None


def evaluate_features(
    features: FeatureSets, wanted: Wanted, pools: Pools | None = None, training: Pools | None = None
) -> dict[str, Any]:
    """What is wanted of every feature, raw and L2-normalized.

    `metric`, and `scores`, which are always those of the Market-1501 protocol; `single_shot`, `multi_query`,
    `whitened`, `expanded`, `reranked` and `verification` where asked for, each a list whose entries name their feature
    as a SCORE does; `whitened` and `expanded` are of rows divided by their length alone. pools: images for multi-query;
    without them it pools the queries' own and the gallery's of their person and camera. training: images that the
    whitening is fitted on.
    """
    if wanted.protocol not in PROTOCOLS:
        raise unknown_name("protocol", wanted.protocol, PROTOCOLS)
    if wanted.expand and wanted.expand not in EXPANSIONS:
        raise unknown_name("query expansion", wanted.expand, tuple(EXPANSIONS))
    content: dict[str, Any] = {
        "metric": wanted.metric,
        "scores": score_list(score(features, metric=wanted.metric)),
    }
    kinds: dict[str, Callable[[Variant], Iterable[dict[str, Any]]]] = {}
    if wanted.protocol == "single-shot":
        kinds["single_shot"] = lambda one: [_single_shot(one, wanted)]
    if wanted.protocol == "multi-query":
        kinds["multi_query"] = lambda one: _multi_query(one, pools)
    if wanted.whiten is not None:
        kinds["whitened"] = lambda one: [_whitened(one, wanted.whiten, training or {})] if _unit(one) else []
    if wanted.expand or wanted.augment:
        kinds["expanded"] = lambda one: [_expanded(one, wanted)] if _unit(one) else []
    if wanted.rerank is not None:
        kinds["reranked"] = lambda one: [_reranked(one, wanted.rerank or {})]
    if wanted.roc:
        kinds["verification"] = lambda one: [verify(one.query, one.gallery, metric=one.metric).to_json()]
    for key, compute in kinds.items():
        ranked = variants(features, metric=wanted.metric)
        content[key] = [{**one.name, **entry} for one in ranked for entry in compute(one)]
    return content


def evaluate_landmarks(
    folder: Path,
    ground_truth: Path,
    *,
    metric: str = "cosine",
    whiten: Whiten | None = None,
    training: Features | None = None,
) -> dict[str, Any]:
    """The protocol of revisited Oxford / Paris for features without labels, `query.npy` and `gallery.npy` of a folder.

    ground_truth: the published `.pkl`, or the same as `.json`. Rows are in its order; a longer gallery goes on with
    distractors. Returns what `score_landmarks` does and, with `whiten`,
    which is fitted on `training`, `whitening`. Raises InputError for files that don't fit.
    """
    truth = read_revisited(ground_truth)
    query, gallery = read_matrix_folder(folder)
    if len(query) != len(truth.queries) or len(gallery) < len(truth.images):
        raise InputError(
            f"{folder}: {len(query)} query and {len(gallery)} gallery rows, but {ground_truth} names "
            f"{len(truth.queries)} queries and {len(truth.images)} images; rows must be in its order"
        )
    if whiten is None or training is None:
        return score_landmarks(query, gallery, truth, metric=metric)
    whitening = whiten.fit(training)
    content = score_landmarks(query, gallery, truth, metric=metric, whitening=whitening)
    return {**content, "whitening": whiten.describe(whitening, training)}


def score_landmarks(
    query: np.ndarray,
    gallery: Any,
    truth: RevisitedGroundTruth,
    *,
    metric: str = "euclidean",
    whitening: Whitening | None = None,
) -> dict[str, Any]:
    """The setups of revisited Oxford / Paris.

    query: (Q, D), gallery: (G, D), in the order of `truth`. Returns `metric`, `scores` (empty), `revisited` (setup ->
    its scores) and, with `whitening`, `revisited_whitened`.
    """
    lists = {"easy": truth.easy, "hard": truth.hard, "junk": truth.junk}

    def setups(query: np.ndarray, gallery: Any) -> dict[str, Any]:
        found = evaluate_revisited(query, gallery, **lists, metric=metric)
        return {setup: scores.to_json() for setup, scores in found.items()}

    content: dict[str, Any] = {"metric": metric, "scores": [], "revisited": setups(query, gallery)}
    if whitening is not None:
        content["revisited_whitened"] = setups(whiten_rows(whitening, query), whiten_rows(whitening, gallery))
    return content


def whitening_features(path: Path | None, scored: Path | None = None, feature: str = "") -> Features:
    """The features of training images that a whitening is fitted on, from a file.

    scored: the features to be whitened; feature: what they are. Raises InputError for no file, the features to be
    scored themselves, and the Eigenlayer's input where its output is scored, or the other way round.
    """
    if path is None:
        raise InputError("a whitening is fitted on features of training images: give them by --whiten-from FILE")
    if scored is not None and path.resolve() == scored.resolve():
        raise InputError(f"{path}: a whitening is fitted on training images, not on what it is to score")
    training, found = read_training_features(path)
    if {found, feature} == {"input", "output"}:
        raise InputError(f"{path} holds the Eigenlayer's {found}, and what is scored is its {feature}")
    return training


def _single_shot(one: Variant, wanted: Wanted) -> dict[str, Any]:
    found = evaluate_single_shot(one.query, one.gallery, metric=one.metric, repeats=wanted.repeats, seed=wanted.seed)
    return {**found.to_json(), "seed": wanted.seed}


def _multi_query(one: Variant, pools: Pools | None) -> Iterable[dict[str, Any]]:
    """A SCORE for each way to pool: `variant` names it, `pool` where the images came from, `alone` how many queries had
    nothing to pool.
    """
    images = own_camera_images(one.query, one.gallery) if pools is None else pools[one.feature, one.flip]
    divided = pools is None and one.metric == "euclidean"
    if (one.normalized or one.metric == "cosine") and not divided:
        images = unit_rows(images)
    source = "query and gallery" if pools is None else "images of their own"
    for how in POOLINGS:
        pooled = pool_queries(one.query, images, how)
        scores = evaluate(pooled.query, one.gallery, metric=one.metric)
        yield {**one.named(scores).to_json(), "variant": f"multi-query {how}", "pool": source, "alone": pooled.alone}


def _unit(one: Variant) -> bool:
    """Whether rows of length 1 are ranked."""
    return one.normalized or one.metric == "cosine"


def _whitened(one: Variant, whiten: Whiten | None, training: Pools) -> dict[str, Any]:
    """A SCORE with its name as `variant` and what it was fitted on."""
    if whiten is None or (one.feature, one.flip) not in training:
        raise InputError(f"no training features to fit a whitening of the {one.feature} on")
    images = training[one.feature, one.flip]
    whitening = whiten.fit(images)
    sides = [dataclasses.replace(side, values=whiten_rows(whitening, side.values)) for side in (one.query, one.gallery)]
    found = whiten.describe(whitening, images)
    variant = f"{WHITENINGS[whiten.how]}, {found['dimensions']} dimensions"
    return {**one.named(evaluate(sides[0], sides[1])).to_json(), "variant": variant, **found}


def _expanded(one: Variant, wanted: Wanted) -> dict[str, Any]:
    """A SCORE with its name as `variant` and what it was computed with. An unexpanded side is just given length 1."""
    neighbors = wanted.neighbors or (5 if wanted.expand == "aqe" else 10)
    # The plain mean, for the gallery too.
    alpha = 0.0 if wanted.expand == "aqe" else wanted.alpha
    if wanted.augment:
        gallery = augment_gallery(one.gallery.values, neighbors=neighbors, alpha=alpha)
    else:
        gallery = normalize_rows(one.gallery.values)
    if wanted.expand:
        query = expand_queries(one.query.values, gallery, neighbors=neighbors, alpha=alpha)
    else:
        query = normalize_rows(one.query.values)
    sides = dataclasses.replace(one.query, values=query), dataclasses.replace(one.gallery, values=gallery)
    steps = filter(None, ("augmented" if wanted.augment else "", EXPANSIONS.get(wanted.expand, "")))
    scores = one.named(evaluate(*sides)).to_json()
    return {**scores, "variant": ", ".join(steps), "neighbours": neighbors, "alpha": alpha}


def _reranked(one: Variant, settings: dict[str, Any]) -> dict[str, Any]:
    scores = rerank_ranking(one.query, one.gallery, metric=one.metric, **settings).scores()
    return {**one.named(scores).to_json(), "variant": "re-ranked", **settings}


def write_neighbors(folder: Path, features: FeatureSets, k: int, *, metric: str = "euclidean") -> list[Path]:
    """`top_k_FEATURE.npz` of every feature, `_flip` added to its name for the flip test; returns the files.

    Each holds `indices` (Q, k) int64, the gallery images nearest to each query, and `distances` (Q, k) float64, their
    squared Euclidean distances (for `cosine` of rows divided by their length), and the images' paths where known. No
    image is left out as junk. Raises InputError for k outside 1 .. gallery.
    """
    written = []
    for (name, flip), (query, gallery) in features.items():
        found = top_k(query.values, gallery.values, k, metric=metric)
        path = folder / f"top_k_{name}{'_flip' if flip else ''}.npz"
        paths = {
            f"{part}_paths": np.array(side.paths)
            for part, side in (("query", query), ("gallery", gallery))
            if side.paths
        }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, indices=found.indices, distances=found.distances, **paths)
        write_bytes(path, buffer.getbuffer())
        written.append(path)
    return written
