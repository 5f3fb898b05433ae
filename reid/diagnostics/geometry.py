"""Geometry of an embedding: dimensions in use, spread on the sphere, neural collapse, and identity against camera."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import hyp0f1, logsumexp

from reid.diagnostics.feature_statistics import covariance
from reid.diagnostics.gaussian import marchenko_pastur_quantiles
from reid.errors import InputError
from reid.records import DISTRACTOR, Features

# Rows of which all pairs are compared for the uniformity: eight million pairs.
MAX_ROWS = 4096


def rank_me(values: np.ndarray) -> float:
    """Compute RankMe: exp of the entropy of the normalized singular values of the features, which are not centered.

    Garrido et al. 2023, "RankMe: Assessing the downstream performance of pretrained self-supervised representations by
    their rank", equation 1. The squares of the singular values are found from the D x D Gram matrix.

    Args:
        values: (N, D) floating, not all zero.

    Returns:
        Number in [1, min(N, D)].
    """
    rows = values.astype(np.float64) / np.abs(values).max()
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(rows.T @ rows), 0.0))
    # Below this, the roots are those of rounding errors.
    return _entropy_rank(singular[singular > 1e-7 * singular.max()])


def rank_me_by_chance(rows: int, dimensions: int) -> float:
    """Compute the RankMe of independent Gaussian entries, from the quantiles of the Marchenko-Pastur density.

    Args:
        rows: N, at least 1.
        dimensions: D, at least 1.

    Returns:
        Number in [1, min(N, D)].
    """
    count = min(rows, dimensions)
    if count == 1:
        return 1.0
    return _entropy_rank(np.sqrt(marchenko_pastur_quantiles(rows, dimensions, (np.arange(count) + 0.5) / count)))


def participation_ratio(values: np.ndarray) -> float:
    """Compute (sum lambda)^2 / sum lambda^2 of the covariance, the number of dimensions that share the variance.

    Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement", equation 1.

    Args:
        values: (N, D) floating.

    Returns:
        Number in [1, min(N - 1, D)].

    Raises:
        InputError: If `covariance` raises it.
    """
    c = _unit_scale(covariance(values))
    return float(np.trace(c) ** 2 / (c**2).sum())


def participation_ratio_by_chance(rows: int, dimensions: int) -> float:
    """Compute the participation ratio of independent Gaussian entries, E (tr C)^2 / E tr C^2 of their covariance C.

    (N - 1) C has a Wishart distribution with n = N - 1 degrees of freedom, so that E (tr C)^2 = D^2 + 2 D / n and
    E tr C^2 = D (n + D + 1) / n (Muirhead 1982, "Aspects of multivariate statistical theory", section 3.2).

    Args:
        rows: N, at least 2.
        dimensions: D, at least 1.

    Returns:
        (n D + 2) / (n + D + 1), in [1, min(n, D)].
    """
    n = rows - 1
    return (n * dimensions + 2) / (n + dimensions + 1)


def alignment(values: np.ndarray, labels: np.ndarray) -> float | None:
    """Compute the mean squared distance of L2-normalized features over all pairs of the same label.

    Wang and Isola 2020, "Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere", section 4.1, with exponent 2. Pairs need not be listed: those of n rows x have the sum of squared
    distances n sum |x|^2 - |sum x|^2.

    Args:
        values: (N, D) floating.
        labels: (N,) integers.

    Returns:
        Number in [0, 4], lower for closer pairs; None without a pair.
    """
    rows, (counts, sums) = _normalized(values), _class_sums(_normalized(values), labels)
    pairs = float((counts * (counts - 1)).sum()) / 2
    squares = np.bincount(np.unique(labels, return_inverse=True)[1], weights=(rows**2).sum(axis=1))
    # The difference of equal squares may be a rounding error below 0.
    return max(0.0, float((counts * squares - (sums**2).sum(axis=1)).sum()) / pairs) if pairs else None


def uniformity(values: np.ndarray, *, seed: int = 0) -> float:
    """Compute log mean exp(-2 |x - y|^2) of L2-normalized features over all pairs of different rows.

    Wang and Isola 2020, section 4.1, with t = 2.

    Args:
        values: (N, D) floating, at least two rows.
        seed: Seed of the choice of `MAX_ROWS` rows, if there are more.

    Returns:
        Number in [-8, 0], lower for more uniform features; `uniformity_by_chance` is its value on the whole sphere.
    """
    if len(values) > MAX_ROWS:
        values = values[np.sort(np.random.default_rng(seed).choice(len(values), MAX_ROWS, replace=False))]
    rows = _normalized(values)
    # log mean over blocks: the full matrix of exponents would need 128 MiB.
    total = [logsumexp(_exponents(rows, start)) for start in range(0, len(rows), 512)]
    return min(0.0, float(logsumexp(total)) - math.log(len(rows) * (len(rows) - 1)))


def uniformity_by_chance(dimensions: int) -> float:
    """Compute the uniformity of independent points, evenly distributed on the sphere: log E exp(4 cos) - 4.

    Args:
        dimensions: D, at least 1.

    Returns:
        Number in [-4, 0], about -4 + 8 / D.
    """
    return math.log(float(hyp0f1(dimensions / 2, 4.0))) - 4.0


def neural_collapse(
    values: np.ndarray, labels: np.ndarray, classifier: np.ndarray | None = None, bias: np.ndarray | None = None
) -> dict[str, Any]:
    """Measure how far the features are from neural collapse, at which all these numbers are 0.

    Papyan, Han and Donoho 2020, "Prevalence of neural collapse during the terminal phase of deep learning training".
    m_c are the class means less the mean of the class means, Sigma_W and Sigma_B the covariances within and of the
    means.

    Args:
        values: (N, D) floating features, the classifier's input.
        labels: (N,) integers; with a classifier its rows.
        classifier: (C, D) weight, or None.
        bias: (C,) bias, or None.

    Returns:
        - nc1: tr(Sigma_W Sigma_B^+) / C, the variance within classes in the directions of the means.
        - nc2_norms: standard deviation of |m_c| over their mean; nc2_angles: mean of |cos(m_c, m_d) + 1 / (C - 1)|.
        - nc3: squared distance of classifier and means, each divided by its Frobenius norm, in [0, 4].
        - nc4: share of features which the classifier assigns to another class than the nearest class mean does.

        nc3 and nc4 are None without a classifier, or if it has classes without features or is not finite; nc3 also if
        it is zero. All are None for one class, or if a class mean is the mean of the means up to rounding, without a
        direction.
    """
    result: dict[str, Any] = dict.fromkeys(("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4"))
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return result
    rows = _unit_scale(_centered(values))
    counts, sums = _class_sums(rows, labels)
    means = sums / counts[:, None]
    centered = means - means.mean(axis=0)
    lengths = np.linalg.norm(centered, axis=1)
    rounding = max(rows.shape) * np.finfo(np.float64).eps * np.linalg.norm(rows, axis=1).max()
    if lengths.min() <= rounding:
        return result
    _, singular, directions = np.linalg.svd(centered, full_matrices=False)
    kept = singular > max(rounding, max(centered.shape) * np.finfo(np.float64).eps * singular[0])
    within = ((rows - means[index]) @ directions[kept].T) ** 2
    # Sigma_B has the eigenvalues s^2 / C, so that C cancels.
    result["nc1"] = float((within.mean(axis=0) / singular[kept] ** 2).sum())
    cosines = (centered / lengths[:, None]) @ (centered / lengths[:, None]).T
    result["nc2_norms"] = float(lengths.std() / lengths.mean())
    pairs = cosines[np.triu_indices(len(classes), 1)]
    result["nc2_angles"] = float(np.abs(pairs + 1 / (len(classes) - 1)).mean())
    if classifier is None or not np.array_equal(classes, np.arange(len(classifier))):
        return result
    if not np.isfinite(classifier).all():
        return result
    weight = _unit_scale(classifier)
    if weight.any():
        difference = weight / np.linalg.norm(weight) - centered / np.linalg.norm(centered)
        result["nc3"] = float((difference**2).sum())
    logits = values.astype(np.float64) @ classifier.astype(np.float64).T + (0.0 if bias is None else bias)
    nearest = (2 * rows @ means.T - (means**2).sum(axis=1)).argmax(axis=1)
    result["nc4"] = float((logits.argmax(axis=1) != nearest).mean())
    return result


def variance_shares(values: np.ndarray, identities: np.ndarray, cameras: np.ndarray) -> dict[str, float]:
    """Split the total variance of the features: is it identity, camera, or neither?

    Eta squared of an analysis of variance (Fisher 1925, "Statistical methods for research workers"): the sum of squares
    of the group means about the mean, over that of the rows, summed over dimensions.

    Args:
        values: (N, D) floating, not all equal.
        identities: (N,) integers.
        cameras: (N,) integers.

    Returns:
        Numbers in [0, 1]:

        - identity, camera: share explained by the means of the identities, and by those of the cameras.
        - camera_within_identity: share that the means of an identity under each camera add to those of the identities.
        - rest: share within an identity under one camera.
        - identity_by_chance, camera_by_chance: expected of labels without meaning, (groups - 1) / (N - 1).
    """
    rows = _unit_scale(_centered(values))
    total = float((rows**2).sum())

    def explained(labels: np.ndarray) -> float:
        counts, sums = _class_sums(rows, labels)
        return float((sums**2 / counts[:, None]).sum()) / total

    cells = np.unique(np.stack([identities, cameras]), axis=1, return_inverse=True)[1].ravel()
    identity, both = explained(identities), explained(cells)
    others = len(rows) - 1
    return {
        "identity": min(1.0, identity),
        "camera": min(1.0, explained(cameras)),
        "camera_within_identity": max(0.0, both - identity),
        "rest": max(0.0, 1.0 - both),
        "identity_by_chance": (len(np.unique(identities)) - 1) / others,
        "camera_by_chance": (len(np.unique(cameras)) - 1) / others,
    }


def describe_geometry(
    features: Features, *, classifier: np.ndarray | None = None, bias: np.ndarray | None = None, seed: int = 0
) -> dict[str, Any]:
    """Describe the geometry of features with identities and, if they come from several, of those of each camera.

    Args:
        features: Features; junk and distractors, which have no identity, are left out.
        classifier: (C, D) weight whose rows are the identities, or None.
        bias: (C,) bias, or None.
        seed: Seed of the rows that `uniformity` compares, and of the shuffled identities.

    Returns:
        Plain values: "images", "identities", "rank_me", "participation_ratio", "alignment", "uniformity" and the
        numbers of `neural_collapse`, and the same by chance: "rank_me_by_chance", "participation_ratio_by_chance" and
        "uniformity_by_chance" of independent Gaussian features of this shape, "alignment_by_chance", the mean over all
        pairs, and "nc1_by_chance", "nc2_norms_by_chance" and "nc2_angles_by_chance" of shuffled identities. For several
        cameras also "variance", the result of `variance_shares`, and "cameras": the same numbers as above, for the
        images of each "camera".

    Raises:
        InputError: If features are constant or not finite.
    """
    # The classes of a training set are counted from 0, which a classifier shows.
    kept = features.identities >= 0 if classifier is not None else features.identities > DISTRACTOR
    values, identities, cameras = features.values[kept], features.identities[kept], features.cameras[kept]
    result = _numbers(values, identities, seed) | neural_collapse(values, identities, classifier, bias)
    if len(np.unique(cameras)) < 2:
        return result
    by_camera = []
    for camera in np.unique(cameras).tolist():
        own = cameras == camera
        try:
            numbers = _numbers(values[own], identities[own], seed) | neural_collapse(values[own], identities[own])
        except InputError:
            continue  # a single image, or equal ones
        by_camera.append({"camera": camera, **numbers})
    return {**result, "variance": variance_shares(values, identities, cameras), "cameras": by_camera}


def _numbers(values: np.ndarray, identities: np.ndarray, seed: int) -> dict[str, Any]:
    ratio = participation_ratio(values)  # raises for what has no geometry
    # As many images per identity, and the same features.
    shuffled = neural_collapse(values, np.random.default_rng(seed).permutation(identities))
    return {
        "images": len(values),
        "identities": len(np.unique(identities)),
        "rank_me": rank_me(values),
        "rank_me_by_chance": rank_me_by_chance(*values.shape),
        "participation_ratio": ratio,
        "participation_ratio_by_chance": participation_ratio_by_chance(*values.shape),
        "alignment": alignment(values, identities),
        "alignment_by_chance": alignment(values, np.zeros(len(values), dtype=np.int64)),
        "uniformity": uniformity(values, seed=seed),
        "uniformity_by_chance": uniformity_by_chance(values.shape[1]),
        **{f"{key}_by_chance": shuffled[key] for key in ("nc1", "nc2_norms", "nc2_angles")},
    }


def _entropy_rank(values: np.ndarray) -> float:
    """Effective number of values above 0: exp of the entropy of their shares."""
    share = values / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _normalized(values: np.ndarray) -> np.ndarray:
    largest = np.abs(values).max(axis=1, keepdims=True)
    # Squares of tiny entries would be zero.
    rows = values.astype(np.float64) / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def _centered(values: np.ndarray) -> np.ndarray:
    """The rows less their mean, (N, D) float64; a dimension in which all are equal is zero, not a rounding error."""
    centered = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    centered[:, values.min(axis=0) == values.max(axis=0)] = 0.0
    return centered


def _unit_scale(values: np.ndarray) -> np.ndarray:
    """The values, float64, over the power of two above the largest, which is exact and keeps squares in range."""
    return np.ldexp(values.astype(np.float64), -np.frexp(np.abs(values).max())[1])


def _class_sums(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number (C,) and sum (C, D) of the rows of each label, ascending."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return counts, np.add.reduceat(rows[order], starts, axis=0)


def _exponents(rows: np.ndarray, start: int) -> np.ndarray:
    """-2 |x - y|^2 of the rows from `start` on, with all others; -inf with themselves."""
    block = rows[start : start + 512]
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[start : start + 512, None] + squares - 2 * block @ rows.T, 0.0)
    exponents = -2 * distances
    exponents[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
    return exponents
