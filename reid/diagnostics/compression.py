"""What SVDNet is not: truncated SVD, which makes the weight smaller, and a PCA of the features, which learns nothing.

SVDNet replaces a learned weight by one of its own size and rank. Its foils keep less: truncated SVD the best
approximation of W by a product of two thin matrices, PCA the directions of largest variance of the Eigenlayer's input,
found without identities and without whitening, as the filters of PCANet (Chan et al. 2015) are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from reid.decorrelation import correlation_metric
from reid.diagnostics.feature_statistics import covariance, doubling
from reid.diagnostics.replacements import Head, output_scores, training_loss
from reid.errors import InputError
from reid.records import Features


def ranks_up_to(full: int) -> list[int]:
    """8, 16, 32, ... and `full`; from 1 on where `full` is no more than 8."""
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
    """W_r = U_r S_r V_r^T in the place of W without retraining, a row for each of `ranks`.

    Of all matrices of rank r it is the nearest to W (Eckart and Young 1936). query, gallery, train: the Eigenlayer's
    input; the identities of `train` are classes, None: no loss is measured.
    parameters: of the two factors, r (D_in + K), against D_in K of the whole weight. dimensions: numbers to store an
    image; r, since U_r S_r gives the distances of W_r, but K where a bias or a ReLU follows. energy: share of the sum
    of squared singular values that is kept. correlation: S(W_r). train_loss: with the classifier as it is. scores:
    SCOREs of the output, raw and L2-normalized.
    Raises InputError for a rank outside [1, min(D_in, K)].
    """
    d_in, k = head.weight.shape
    plain = head.bias is None and not head.relu
    left, values, right = np.linalg.svd(head.weight, full_matrices=False)
    rows = []
    for rank in tqdm(ranks, desc="truncated SVD", unit="rank", leave=False):
        _check_rank(rank, min(d_in, k))
        thin = left[:, :rank] * values[:rank]
        compressed = dataclasses.replace(head, weight=thin @ right[:rank])
        # V_r has orthonormal columns: the thin factor's output has the distances and lengths of the whole product.
        scored = Head(thin, None, relu=False, classifier=None) if plain else compressed
        rows.append(
            {
                "rank": rank,
                "dimensions": rank if plain else k,
                "parameters": rank * (d_in + k),
                "energy": float((values[:rank] ** 2).sum() / (values**2).sum()),
                "correlation": correlation_metric(torch.from_numpy(compressed.weight)),
                "train_loss": training_loss(compressed, train, label_smoothing=label_smoothing),
                "scores": output_scores(scored, query, gallery),
            }
        )
    return rows


def principal_components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), components (D, D) in columns, and their variances (D,), descending, of rows (N, D); all float64.

    Each component has its entry of largest absolute value positive. Raises InputError as `covariance` does.
    """
    variances, components = np.linalg.eigh(covariance(values))
    components = components[:, ::-1]
    largest = components[np.abs(components).argmax(axis=0), np.arange(len(components))]
    return values.mean(axis=0, dtype=np.float64), components * np.sign(largest), np.maximum(variances[::-1], 0.0)


def pca_rows(query: Features, gallery: Features, train: Features, *, ranks: Sequence[int]) -> list[dict[str, Any]]:
    """The Eigenlayer's input on its first r principal components, a row for each of `ranks`.

    Mean and components are those of `train`; the mean is taken off, nothing is whitened, and W plays no part.
    parameters: r D_in of the components and D_in of the mean. dimensions: r. variance: share of the training features'
    variance that is kept. scores: SCOREs, raw and L2-normalized, named "pca" as a feature.
    Raises InputError for a rank outside [1, D_in].
    """
    mean, components, variances = principal_components(train.values)
    rows = []
    for rank in tqdm(ranks, desc="PCA", unit="rank", leave=False):
        _check_rank(rank, len(mean))
        # A PCA is a linear layer of its own: the projection, with minus the projected mean as its bias.
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
