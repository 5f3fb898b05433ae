"""Compression of the Eigenlayer for comparison with SVDNet: truncated SVD of its weight, and PCA of its input.

SVDNet replaces a learned weight by one of the same size and rank. Truncated SVD instead keeps the best approximation of
W by a product of two thin matrices. PCA keeps the directions of largest variance of the Eigenlayer's input, found
without labels and without whitening, like the filters of PCANet (Chan et al. 2015).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from reid.decorrelation import correlation_metric
from reid.diagnostics.feature_statistics import covariance, doubling
from reid.diagnostics.replacements import Head, output_scores, training_loss
from reid.errors import InputError
from reid.progress import track
from reid.records import Features


def ranks_up_to(full: int) -> list[int]:
    """List the ranks to evaluate.

    Args:
        full: Full rank, min(D_in, K); at least 1.

    Returns:
        8, 16, 32, ... and `full`; starting at 1 if `full` is at most 8.
    """
    return doubling(8 if full > 8 else 1, full)


def truncated_rows(
    head: Head,
    query: Features,
    gallery: Features,
    train: Features | None,
    *,
    ranks: Sequence[int],
    label_smoothing: float = 0.0,
) -> list[dict[str, Any]]:
    """Evaluate W_r = U_r S_r V_r^T in place of W without retraining; it is the nearest matrix of rank r to W.

    The approximation theorem is that of Eckart and Young 1936.

    Args:
        head: The Eigenlayer and the classifier.
        query: The Eigenlayer's input.
        gallery: The Eigenlayer's input.
        train: The Eigenlayer's input with classes as identities; None to measure no loss.
        ranks: Ranks r in [1, min(D_in, K)].
        label_smoothing: Label smoothing of the loss, in [0, 1).

    Returns:
        A row per rank. "parameters": of the two factors, r (D_in + K). "dimensions": numbers to store per image, r,
        since U_r S_r gives the distances of W_r, but K if a bias or a ReLU follows. "energy": kept share of the sum of
        squared singular values. "correlation": S(W_r). "train_loss": with the classifier unchanged. "scores": SCOREs
        of the output, raw and L2-normalized.

    Raises:
        InputError: If a rank is outside [1, min(D_in, K)].
    """
    d_in, k = head.weight.shape
    linear = head.bias is None and not head.relu
    left, values, right = np.linalg.svd(head.weight, full_matrices=False)
    rows = []
    for rank in track(ranks, "truncated SVD", unit="ranks"):
        _check_rank(rank, min(d_in, k))
        thin = left[:, :rank] * values[:rank]
        compressed = dataclasses.replace(head, weight=thin @ right[:rank])
        # V_r has orthonormal columns, so the output of the thin factor has the distances and norms of the product.
        scored = Head(thin, None, relu=False, classifier=None) if linear else compressed
        rows.append(
            {
                "rank": rank,
                "dimensions": rank if linear else k,
                "parameters": rank * (d_in + k),
                "energy": float((values[:rank] ** 2).sum() / (values**2).sum()),
                "correlation": correlation_metric(torch.from_numpy(compressed.weight)),
                "train_loss": training_loss(compressed, train, label_smoothing=label_smoothing),
                "scores": output_scores(scored, query, gallery),
            }
        )
    return rows


def principal_components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the principal components of features, each with its entry of largest absolute value positive.

    Args:
        values: (N, D) floating.

    Returns:
        Mean (D,), components (D, D) in columns, and their variances (D,), descending; all float64.

    Raises:
        InputError: If `covariance` raises it.
    """
    variances, components = np.linalg.eigh(covariance(values))
    components = components[:, ::-1]
    largest = components[np.abs(components).argmax(axis=0), np.arange(len(components))]
    return values.mean(axis=0, dtype=np.float64), components * np.sign(largest), np.maximum(variances[::-1], 0.0)


def pca_rows(query: Features, gallery: Features, train: Features, *, ranks: Sequence[int]) -> list[dict[str, Any]]:
    """Evaluate the Eigenlayer's input projected on its first r principal components; W is not used.

    Args:
        query: The Eigenlayer's input.
        gallery: The Eigenlayer's input.
        train: The Eigenlayer's input, from which mean and components are computed.
        ranks: Numbers r of components, in [1, D_in].

    Returns:
        A row per rank. "parameters": r D_in of the components and D_in of the mean. "dimensions": r. "variance": kept
        share of the training features' variance. "scores": SCOREs, raw and L2-normalized, with the feature name "pca".

    Raises:
        InputError: If a rank is outside [1, D_in].
    """
    mean, components, variances = principal_components(train.values)
    rows = []
    for rank in track(ranks, "PCA", unit="ranks"):
        _check_rank(rank, len(mean))
        # PCA is a linear layer whose bias is minus the projected mean.
        projection = components[:, :rank]
        layer = Head(projection, -mean @ projection, relu=False, classifier=None)
        rows.append(
            {
                "rank": rank,
                "dimensions": rank,
                "parameters": rank * len(mean) + len(mean),
                "variance": float(variances[:rank].sum() / variances.sum()),
                "scores": [{**entry, "feature": "pca"} for entry in output_scores(layer, query, gallery)],
            }
        )
    return rows


def _check_rank(rank: int, largest: int) -> None:
    if not 1 <= rank <= largest:
        raise InputError(f"rank {rank} is outside 1 to {largest}, the smaller side of the matrix")
