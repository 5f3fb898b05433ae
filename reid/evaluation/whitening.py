"""Whitening of descriptors, fitted on those of training images and applied to query and gallery."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError, check_count, unknown_name
from reid.ranking.arrays import to_numpy
from reid.records import DISTRACTOR, Features

# Name -> label in tables.
WHITENINGS = {"pca": "PCA-whitened", "learned": "learned whitening"}
MAX_PAIRS = 100_000
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Whitening:
    """The map x -> P (x - m), followed by normalization.

    Attributes:
        mean: m, (D,) float64.
        projection: P, (D', D) float64.
    """

    mean: np.ndarray
    projection: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Whiten features and divide the rows by their length; a row equal to the mean stays 0.

        Args:
            features: (N, D) of any real type.

        Returns:
            (N, D') float64.

        Raises:
            InputError: If the number of dimensions differs from that of the fit.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise InputError(
                f"a whitening of {len(self.mean)} dimensions cannot be applied to features of shape {features.shape}"
            )
        return _unit_rows((features.astype(np.float64) - self.mean) @ self.projection.T)


@dataclass(frozen=True)
class WhiteningOptions:
    """Kind and parameters of a whitening.

    Attributes:
        how: Name in `WHITENINGS`.
        dim: Number of components kept, 0 for all.
        ridge: Fraction of the mean variance that `learned_whitening` adds.
        seed: Seed of the pairs sampled for "learned".
    """

    how: str
    dim: int = 0
    ridge: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in WHITENINGS:
            raise unknown_name("whitening", self.how, tuple(WHITENINGS))
        if not 0 <= self.ridge < math.inf:
            raise InputError(f"ridge {self.ridge}: must be a fraction of the mean variance, 0 or more")
        check_count("dim", self.dim, minimum=0)
        check_count("seed", self.seed, minimum=0)

    def fit(self, training: Features) -> Whitening:
        """Fit a whitening on training features divided by their length.

        The pairs for "learned" are images of one identity (junk and distractors excluded) by two cameras, at most
        `MAX_PAIRS` sampled ones; if all images have the same camera, any two images of an identity.

        Args:
            training: Features of training images.

        Returns:
            Whitening fitted on the rows of unit length.

        Raises:
            InputError: If `pca_whitening`, `learned_whitening` or `matching_pairs` raises it.
        """
        values = _unit_rows(to_numpy(training.values[:]))
        if self.how == "pca":
            return pca_whitening(values, dim=self.dim)
        rows = np.flatnonzero(training.identities > DISTRACTOR)
        cameras = training.cameras[rows]
        if len(np.unique(cameras)) == 1:
            cameras = np.arange(len(rows))
        pairs = rows[matching_pairs(training.identities[rows], cameras, count=MAX_PAIRS, seed=self.seed)]
        return learned_whitening(values, pairs, dim=self.dim, ridge=self.ridge)

    def describe(self, whitening: Whitening, training: Features) -> dict[str, Any]:
        """Describe a fitted whitening.

        Args:
            whitening: Result of `fit` for `training`.
            training: Features that it was fitted on.

        Returns:
            Its entry in `evaluation.json`.
        """
        dimensions, images = len(whitening.projection), len(training.values)
        return {"whitening": self.how, "ridge": self.ridge, "dimensions": dimensions, "training_images": images}


def whiten_rows(whitening: Whitening, features: Any) -> np.ndarray:
    """Whiten features after dividing the rows by their length, as `WhiteningOptions.fit` does.

    Args:
        whitening: Result of `WhiteningOptions.fit`.
        features: (N, D) array, memory map or shards.

    Returns:
        (N, D') float32 rows of length 1.
    """
    blocks = [np.empty((0, len(whitening.projection)), dtype=np.float32)]
    for start in range(0, len(features), _BLOCK):
        values = _unit_rows(to_numpy(features[start : start + _BLOCK]))
        blocks.append(whitening.apply(values).astype(np.float32))
    return np.concatenate(blocks)


def pca_whitening(features: np.ndarray, *, dim: int = 0) -> Whitening:
    """Fit a PCA whitening: principal components divided by their standard deviations.

    The whitened training features have the covariance I, which is a mean over N (Jégou and Chum, ECCV 2012).

    Args:
        features: (N, D) features of training images.
        dim: Number of components kept, the strongest first; 0 for all.

    Returns:
        Mean (D,) and projection (D', D).

    Raises:
        InputError: If the features do not vary in `dim` directions.
    """
    centered, mean = _centered(features)
    kept = _num_components(dim, centered.shape[1])
    values, vectors = _descending_eigh(centered.T @ centered / len(centered))
    rank = _rank(values)
    if kept > rank:
        raise InputError(
            f"dim {kept}: the {len(centered)} features vary in only {rank} directions; fit on more images, or keep at "
            f"most {rank}"
        )
    return Whitening(mean, vectors[:, :kept].T / np.sqrt(values[:kept, None]))


def learned_whitening(features: np.ndarray, pairs: np.ndarray, *, dim: int = 0, ridge: float = 0.0) -> Whitening:
    """Whiten the differences of images of the same identity, then rotate to the principal components of all images.

    Radenović, Tolias, Chum 2018, Section 3.4, after Mikolajczyk and Matas 2007: S = mean of d d^T over the differences
    d of matching pairs, P = chol(S)^-1, then the eigenvectors of P (X - m) (X - m)^T P^T, the strongest first.

    Args:
        features: (N, D) features of training images.
        pairs: (M, 2) rows that match.
        dim: Number of components kept, 0 for all.
        ridge: Fraction of the mean variance that is added to the diagonal of S, for dimensions in which no pair
            differs; the paper has none.

    Returns:
        Mean (D,) and projection (D', D).

    Raises:
        InputError: If the pairs do not differ in D independent directions.
    """
    centered, mean = _centered(features)
    kept = _num_components(dim, centered.shape[1])
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or pairs.min() < 0 or pairs.max() >= len(centered):
        raise InputError(
            f"matching pairs must be (M, 2) row indices below {len(centered)}, M above 0; shape {pairs.shape}"
        )
    within = np.zeros((centered.shape[1], centered.shape[1]))
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        differences = centered[block[:, 0]] - centered[block[:, 1]]
        within += differences.T @ differences / len(pairs)
    within += ridge * np.trace(within) / len(within) * np.eye(len(within))
    rank = _rank(np.linalg.eigvalsh(within)[::-1])
    if rank < len(within):
        raise InputError(
            f"{len(pairs)} matching pairs differ in only {rank} of {len(within)} dimensions, so the rest cannot be "
            "whitened; use more pairs, reduce the features by PCA first, or add a ridge such as 1e-3"
        )
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    white = centered @ whiten.T
    _, vectors = _descending_eigh(white.T @ white)
    return Whitening(mean, vectors[:, :kept].T @ whiten)


def matching_pairs(identities: np.ndarray, cameras: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """List the pairs of rows with the same identity and different cameras.

    Args:
        identities: (N,) integers.
        cameras: (N,) integers.
        count: Largest number of pairs; if there are more, as many are sampled.
        seed: Seed of the sample.

    Returns:
        (M, 2) int64 row indices, each pair once.

    Raises:
        InputError: If there is no such pair.
    """
    order = np.lexsort((cameras, identities))
    # In this order, a row's partners are those after its camera up to the end of its identity.
    ends = [_block_ends(identities[order]), _block_ends(identities[order], cameras[order])]
    until = np.cumsum(ends[0] - ends[1])
    total = int(until[-1]) if len(until) else 0
    if not total:
        raise InputError("no identity was seen by two cameras, so there is no matching pair to learn a whitening from")
    if total <= count:
        numbers = np.arange(total)
    else:
        numbers = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    first = np.searchsorted(until, numbers, side="right")
    second = ends[0][first] - (until[first] - numbers)
    return np.stack([order[first], order[second]], axis=1)


def _block_ends(*labels: np.ndarray) -> np.ndarray:
    """The end of the block of equal labels that each row is in, exclusive."""
    changes = np.any([column[1:] != column[:-1] for column in labels], axis=0)
    starts = np.concatenate([[True], changes])[: len(labels[0])]
    ends = np.append(np.flatnonzero(starts)[1:], len(starts))
    return ends[np.cumsum(starts) - 1]


def _unit_rows(values: np.ndarray) -> np.ndarray:
    """Return (N, D) float64 rows of length 1; a row of zeros stays zero."""
    rows = values.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=rows, where=lengths > 0)


def _centered(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if features.ndim != 2 or len(features) < 2:
        raise InputError(f"a whitening is fitted on (N, D) features, N at least 2, not {features.shape}")
    values = features.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("the features to fit a whitening on hold NaN or infinity")
    mean = values.mean(0)
    return values - mean, mean


def _num_components(dim: int, available: int) -> int:
    if not 0 <= dim <= available:
        raise InputError(f"dim {dim}: must be in [1, {available}], or 0 for all")
    return dim or available


def _descending_eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


def _rank(values: np.ndarray) -> int:
    """Count the eigenvalues, descending, that exceed rounding errors."""
    return int((values > values[0] * len(values) * np.finfo(np.float64).eps).sum())
