"""Initial clusters of a VLAD: k-means on local descriptors and the soft assignment that fits its centers.

alpha is chosen such that, for the mean gap between the two nearest clusters, the second gets
0.01 of what the first gets.
"""

from __future__ import annotations

import math

import numpy as np

from reid.errors import InputError

INITS = ("kmeans_v1", "kmeans_v2", "random")
_RATIO = 0.01
_MAX_ITERATIONS = 100


def cluster(descriptors: np.ndarray, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Run k-means from a k-means++ start.

    The same descriptors and seed give the same centers.

    Args:
        descriptors: (N, C) floating.
        count: Number of clusters.
        seed: Seed of the start.

    Returns:
        Centers (count, C) float64, and the number of descriptors per cluster (count,) int64.

    Raises:
        InputError: If there are fewer distinct descriptors than clusters.
    """
    # Imported here: it takes a second, which every command would pay.
    from sklearn.cluster import KMeans

    distinct: set[bytes] = set()
    for descriptor in descriptors:
        distinct.add(descriptor.tobytes())
        if len(distinct) == count:
            break
    else:
        raise InputError(
            f"{count} clusters are more than the {len(distinct)} distinct local descriptors of the training images; "
            "use fewer clusters, or larger or more images"
        )
    result = KMeans(count, n_init=1, max_iter=_MAX_ITERATIONS, random_state=seed % 2**32).fit(descriptors)
    return result.cluster_centers_.astype(np.float64), np.bincount(result.labels_, minlength=count)


def soft_assignment_v2(centers: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Compute the soft assignment by distances, Eq. 2 to 4 of the NetVLAD paper.

    w = 2 alpha c, b = -alpha |c|^2 and alpha = -ln(0.01) / mean(d2^2 - d1^2), where d1 and d2 are the distances of a
    descriptor to its two nearest centers.

    Args:
        centers: (K, C) floating.
        descriptors: (N, C) floating.

    Returns:
        w (K, C) float64, b (K,) float64, and alpha.

    Raises:
        InputError: If the two nearest centers of every descriptor are equally near.
    """
    centers, descriptors = centers.astype(np.float64), descriptors.astype(np.float64)
    squares = (centers**2).sum(1)
    # |x|^2 is the same for both distances of a descriptor.
    near = np.partition(squares - 2 * descriptors @ centers.T, 1, axis=1)
    alpha = _alpha(float(np.mean(near[:, 1] - near[:, 0])))
    return 2 * alpha * centers, -alpha * squares, alpha


def soft_assignment_v1(centers: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the soft assignment by angles, without a bias.

    w = alpha c / |c| and alpha = -ln(0.01) / mean(s1 - s2), where s1 and s2 are the two largest cosines of a descriptor
    to the centers.

    Args:
        centers: (K, C) floating.
        descriptors: (N, C) floating, of unit length.

    Returns:
        w (K, C) float64, and alpha.

    Raises:
        InputError: If the two nearest centers of every descriptor are equally near.
    """
    centers, descriptors = centers.astype(np.float64), descriptors.astype(np.float64)
    directions = centers / np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    near = np.partition(descriptors @ directions.T, -2, axis=1)
    alpha = _alpha(float(np.mean(near[:, -1] - near[:, -2])))
    return alpha * directions, alpha


def _alpha(gap: float) -> float:
    if gap <= 0:
        raise InputError(
            "the two nearest clusters of every local descriptor are equally near, so no soft assignment can separate "
            "them; use fewer clusters"
        )
    return -math.log(_RATIO) / gap
