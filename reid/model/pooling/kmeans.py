"""Where the clusters of a VLAD start: k-means on local descriptors, and the soft assignment that fits its centers.

alpha is chosen so that on the mean descriptor the second best cluster gets 0.01 of what the best one gets.
"""

from __future__ import annotations

import math

import numpy as np

from reid.errors import InputError

INITS = ("kmeans_v1", "kmeans_v2", "random")
RATIO = 0.01
ITERATIONS = 100


def cluster(descriptors: np.ndarray, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means of descriptors (N, C), from a k-means++ start: centers (count, C) float64, and their sizes (count,).

    The same descriptors and seed give the same centers. Raises InputError for fewer distinct descriptors than `count`.
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
            f"{count} clusters are more than the {len(distinct)} distinct local descriptors of the training images: "
            "take fewer clusters, or larger or more images"
        )
    found = KMeans(count, n_init=1, max_iter=ITERATIONS, random_state=seed % 2**32).fit(descriptors)
    return found.cluster_centers_.astype(np.float64), np.bincount(found.labels_, minlength=count)


def soft_assignment_v2(centres: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """w = 2 alpha c (K, C), b = -alpha |c|^2 (K,), and alpha = -ln(0.01) / mean(d2^2 - d1^2).

    d1, d2: distances of a descriptor to its two nearest centers (Eq. 2 to 4 of the NetVLAD paper).
    """
    centres, descriptors = centres.astype(np.float64), descriptors.astype(np.float64)
    squares = (centres**2).sum(1)
    # |x|^2 is the same for both of a descriptor's distances
    near = np.partition(squares - 2 * descriptors @ centres.T, 1, axis=1)
    alpha = _alpha(float(np.mean(near[:, 1] - near[:, 0])))
    return 2 * alpha * centres, -alpha * squares, alpha


def soft_assignment_v1(centres: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, float]:
    """w = alpha c / |c| (K, C), without b, and alpha = -ln(0.01) / mean(s1 - s2).

    s1, s2: the two largest cosines of a descriptor of unit length to the centers.
    """
    centres, descriptors = centres.astype(np.float64), descriptors.astype(np.float64)
    directions = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    near = np.partition(descriptors @ directions.T, -2, axis=1)
    alpha = _alpha(float(np.mean(near[:, -1] - near[:, -2])))
    return alpha * directions, alpha


def _alpha(gap: float) -> float:
    if gap <= 0:
        raise InputError(
            "the two nearest clusters of every local descriptor are equally near, so that no soft assignment tells "
            "them apart: take fewer clusters"
        )
    return -math.log(RATIO) / gap
