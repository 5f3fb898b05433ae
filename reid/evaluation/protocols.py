"""Evaluation of features under all protocols, as the content of `evaluation.json`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid.data.datasets.revisited import RevisitedGroundTruth, read_revisited
from reid.errors import InputError, check_count, unknown_name
from reid.evaluation.retrieval import FeatureSets, Variant, VariantFeatures, score, unit_rows, variants
from reid.evaluation.whitening import WHITENINGS, Whitening, WhiteningOptions, whiten_rows
from reid.io.feature_files import read_matrix_folder, read_training_features
from reid.io.sealing import write_sealed
from reid.ranking import evaluate, normalize_rows
from reid.ranking.expansion import augment_gallery, check_alpha, expand_queries
from reid.ranking.protocols.multi_query import QUERY_POOLINGS, own_camera_images, pool_queries
from reid.ranking.protocols.revisited import evaluate_revisited
from reid.ranking.protocols.single_shot import evaluate_single_shot
from reid.ranking.protocols.verification import verify
from reid.ranking.reranking.rerank import RerankOptions, rerank_ranking
from reid.ranking.search import top_k
from reid.records import Features, score_list

PROTOCOLS = ("market", "single-shot", "multi-query")
# Name -> label in tables.
EXPANSIONS = {"aqe": "AQE", "alpha": "alpha-QE"}


@dataclass(frozen=True)
class EvaluationOptions:
    """What to compute in addition to the Market-1501 protocol.

    Attributes:
        metric: "euclidean" or "cosine".
        protocol: Name in `PROTOCOLS`.
        repeats: Number of samples per query for "single-shot".
        seed: Seed of these samples.
        roc: Compute the ROC curve of all pairs.
        rerank: Parameters of k-reciprocal re-ranking, None for none.
        expand: Query expansion, a name in `EXPANSIONS`, or "" for none.
        augment: Augment the gallery too, before the queries are expanded.
        neighbors: Number of neighbors of both; 0 for 5 with "aqe", otherwise 10.
        alpha: Exponent of the cosine in both, 0 with "aqe".
        whitening: Whitening to fit, None for none.
    """

    metric: str = "euclidean"
    protocol: str = "market"
    repeats: int = 100
    seed: int = 0
    roc: bool = False
    rerank: RerankOptions | None = None
    expand: str = ""
    augment: bool = False
    neighbors: int = 0
    alpha: float = 3.0
    whitening: WhiteningOptions | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise unknown_name("protocol", self.protocol, PROTOCOLS)
        if self.expand and self.expand not in EXPANSIONS:
            raise unknown_name("query expansion", self.expand, tuple(EXPANSIONS))
        check_count("repeats", self.repeats)
        check_count("seed", self.seed, minimum=0)
        check_count("neighbors", self.neighbors, minimum=0)
        check_alpha(self.alpha)


def evaluate_features(
    features: FeatureSets,
    options: EvaluationOptions,
    pools: VariantFeatures | None = None,
    training: VariantFeatures | None = None,
) -> dict[str, Any]:
    """Evaluate every feature, raw and L2-normalized.

    Args:
        features: Features of query and gallery.
        options: What to compute.
        pools: Images to pool for multi-query; None to pool the queries and the gallery images of their identity and
            camera.
        training: Features of training images that the whitening is fitted on.

    Returns:
        `metric` and `scores`, always those of the Market-1501 protocol; `single_shot`, `multi_query`, `whitened`,
        `expanded`, `reranked` and `verification` if requested, each a list whose entries name their feature as
        a score does. `whitened` and `expanded` only cover rows of length 1.

    Raises:
        InputError: If one of the requested evaluations raises it.
    """
    content: dict[str, Any] = {
        "metric": options.metric,
        "scores": score_list(score(features, metric=options.metric)),
    }
    kinds: dict[str, Callable[[Variant], Iterable[dict[str, Any]]]] = {}
    if options.protocol == "single-shot":
        kinds["single_shot"] = lambda variant: [_single_shot(variant, options)]
    if options.protocol == "multi-query":
        kinds["multi_query"] = lambda variant: _multi_query(variant, pools)
    if (whitening := options.whitening) is not None:
        kinds["whitened"] = lambda variant: [_whitened(variant, whitening, training or {})] if _unit(variant) else []
    if options.expand or options.augment:
        kinds["expanded"] = lambda variant: [_expanded(variant, options)] if _unit(variant) else []
    if (rerank := options.rerank) is not None:
        kinds["reranked"] = lambda variant: [_reranked(variant, rerank)]
    if options.roc:
        kinds["verification"] = lambda variant: [
            verify(variant.query, variant.gallery, metric=variant.metric).to_json()
        ]
    for key, compute in kinds.items():
        ranked = variants(features, metric=options.metric)
        content[key] = [{**variant.name, **entry} for variant in ranked for entry in compute(variant)]
    return content


def evaluate_landmarks(
    folder: Path,
    ground_truth: Path,
    *,
    metric: str = "cosine",
    whitening: WhiteningOptions | None = None,
    training: Features | None = None,
) -> dict[str, Any]:
    """Evaluate unlabeled features, `query.npy` and `gallery.npy`, under the protocol of revisited Oxford / Paris.

    Args:
        folder: Folder of the features. Rows are in the order of the ground truth; further gallery rows are distractors.
        ground_truth: The published `.pkl`, or the same as `.json`.
        metric: "euclidean" or "cosine".
        whitening: Whitening to fit, None for none.
        training: Features that it is fitted on.

    Returns:
        The content as `score_landmarks` returns it and, with a whitening, `whitening`.

    Raises:
        InputError: If the files do not fit together.
    """
    truth = read_revisited(ground_truth)
    query, gallery = read_matrix_folder(folder)
    if len(query) != len(truth.queries) or len(gallery) < len(truth.images):
        raise InputError(
            f"{folder}: {len(query)} query and {len(gallery)} gallery rows, but {ground_truth} names "
            f"{len(truth.queries)} queries and {len(truth.images)} images; rows must be in the same order"
        )
    if whitening is None or training is None:
        return score_landmarks(query, gallery, truth, metric=metric)
    fitted = whitening.fit(training)
    content = score_landmarks(query, gallery, truth, metric=metric, whitening=fitted)
    return {**content, "whitening": whitening.describe(fitted, training)}


def score_landmarks(
    query: np.ndarray,
    gallery: Any,
    truth: RevisitedGroundTruth,
    *,
    metric: str = "euclidean",
    whitening: Whitening | None = None,
) -> dict[str, Any]:
    """Evaluate the setups of revisited Oxford / Paris.

    Args:
        query: (Q, D) descriptors in the order of `truth`.
        gallery: (G, D) descriptors in the order of `truth`.
        truth: Relevant and junk images per query, as gallery indices.
        metric: "euclidean" or "cosine".
        whitening: A fitted whitening, None for none.

    Returns:
        `metric`, `scores` (empty), `revisited` (setup -> scores) and, with a whitening, `revisited_whitened`.
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
    """Read the features of training images that a whitening is fitted on.

    Args:
        path: File of the training features.
        scored: File of the features that are evaluated.
        feature: What these are, "input" or "output", "" if unknown.

    Returns:
        Features with the identities that the whitening needs.

    Raises:
        InputError: If there is no file, the file holds the evaluated features themselves, or it holds the Eigenlayer's
            input while its output is evaluated, or vice versa.
    """
    if path is None:
        raise InputError("a whitening is fitted on features of training images; add --whiten-from FILE")
    if scored is not None and path.resolve() == scored.resolve():
        raise InputError(f"{path}: a whitening is fitted on training images, not on the features it is applied to")
    training, found = read_training_features(path)
    if {found, feature} == {"input", "output"}:
        raise InputError(f"{path}: holds the Eigenlayer's {found}, but its {feature} is evaluated")
    return training


def _single_shot(variant: Variant, options: EvaluationOptions) -> dict[str, Any]:
    scores = evaluate_single_shot(
        variant.query, variant.gallery, metric=variant.metric, repeats=options.repeats, seed=options.seed
    )
    return {**scores.to_json(), "seed": options.seed}


def _multi_query(variant: Variant, pools: VariantFeatures | None) -> Iterable[dict[str, Any]]:
    """Yield a score per pooling with the source of the images (`pool`) and the number of unpooled queries (`alone`)."""
    images = (
        own_camera_images(variant.query, variant.gallery) if pools is None else pools[variant.feature, variant.flip]
    )
    divided = pools is None and variant.metric == "euclidean"
    if (variant.normalized or variant.metric == "cosine") and not divided:
        images = unit_rows(images)
    source = "query and gallery" if pools is None else "images of their own"
    for how in QUERY_POOLINGS:
        pooled = pool_queries(variant.query, images, how)
        scores = evaluate(pooled.query, variant.gallery, metric=variant.metric)
        yield {
            **variant.named(scores).to_json(),
            "variant": f"multi-query {how}",
            "pool": source,
            "alone": pooled.unpooled,
        }


def _unit(variant: Variant) -> bool:
    """Return whether rows of length 1 are ranked."""
    return variant.normalized or variant.metric == "cosine"


def _whitened(variant: Variant, options: WhiteningOptions, training: VariantFeatures) -> dict[str, Any]:
    """Return a score with the description of the whitening."""
    if (variant.feature, variant.flip) not in training:
        raise InputError(f"there are no training features to fit a whitening of the {variant.feature} on")
    images = training[variant.feature, variant.flip]
    whitening = options.fit(images)
    query, gallery = (
        dataclasses.replace(side, values=whiten_rows(whitening, side.values))
        for side in (variant.query, variant.gallery)
    )
    description = options.describe(whitening, images)
    label = f"{WHITENINGS[options.how]}, {description['dimensions']} dimensions"
    return {**variant.named(evaluate(query, gallery)).to_json(), "variant": label, **description}


def _expanded(variant: Variant, options: EvaluationOptions) -> dict[str, Any]:
    """Return a score with the parameters of the expansion; a side that is not expanded is only normalized."""
    neighbors = options.neighbors or (5 if options.expand == "aqe" else 10)
    # The plain mean, for the gallery too.
    alpha = 0.0 if options.expand == "aqe" else options.alpha
    if options.augment:
        gallery = augment_gallery(variant.gallery.values, neighbors=neighbors, alpha=alpha)
    else:
        gallery = normalize_rows(variant.gallery.values)
    if options.expand:
        query = expand_queries(variant.query.values, gallery, neighbors=neighbors, alpha=alpha)
    else:
        query = normalize_rows(variant.query.values)
    sides = dataclasses.replace(variant.query, values=query), dataclasses.replace(variant.gallery, values=gallery)
    steps = filter(None, ("augmented" if options.augment else "", EXPANSIONS.get(options.expand, "")))
    scores = variant.named(evaluate(*sides)).to_json()
    # Existing files use the key "neighbours".
    return {**scores, "variant": ", ".join(steps), "neighbours": neighbors, "alpha": alpha}


def _reranked(variant: Variant, options: RerankOptions) -> dict[str, Any]:
    scores = rerank_ranking(variant.query, variant.gallery, options, metric=variant.metric).scores()
    return {**variant.named(scores).to_json(), "variant": "re-ranked", **dataclasses.asdict(options)}


def write_neighbors(folder: Path, features: FeatureSets, k: int, *, metric: str = "euclidean") -> list[Path]:
    """Write `top_k_FEATURE.npz`, or `top_k_FEATURE_flip.npz` for the flip test, of every feature.

    Each file holds `indices` (Q, k) int64, the gallery images nearest to each query, `distances` (Q, k) float64, their
    squared Euclidean distances (with "cosine" of rows divided by their length), and the paths of the images if known.
    Junk is not removed.

    Args:
        folder: Folder in which the files are written.
        features: Features of query and gallery.
        k: Number of gallery images per query.
        metric: "euclidean" or "cosine".

    Returns:
        Paths of the written files, one per feature.

    Raises:
        InputError: If k is outside 1 .. G.
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
        write_sealed(path, buffer.getbuffer())
        written.append(path)
    return written
