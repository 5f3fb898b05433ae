"""Multi-query evaluation (Zheng et al. 2015): a query is described by all images of its identity by its camera."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError, unknown_name
from reid.ranking.arrays import all_rows, rows_of, to_numpy
from reid.records import Features

QUERY_POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda rows: rows.mean(axis=0, dtype=np.float64),
    "max": lambda rows: rows.max(axis=0),
}


@dataclass(frozen=True)
class PooledQueries:
    """Queries with pooled descriptors.

    Attributes:
        query: Queries in their original order, with pooled rows.
        unpooled: Number of queries without images to pool, which are unchanged.
    """

    query: Features
    unpooled: int


def pool_queries(query: Features, images: Features, how: str = "mean") -> PooledQueries:
    """Replace each query by the mean or maximum, per dimension, of the images of its identity by its camera.

    The descriptors are not normalized: for unit rows divide by the length before, after, or both.

    Args:
        query: Query features with identities and cameras.
        images: Images to pool, such as the hand-drawn boxes of Market-1501 (`gt_bbox`, which include the query's) or
            `own_camera_images`.
        how: "mean" or "max".

    Returns:
        The pooled queries, in the type of the query's values.

    Raises:
        InputError: If `how` is unknown or the widths differ.
    """
    if how not in QUERY_POOLINGS:
        raise unknown_name("pooling of queries", how, tuple(QUERY_POOLINGS))
    if query.values.shape[1] != images.values.shape[1]:
        raise InputError(
            f"queries have {query.values.shape[1]} dimensions and the images to pool {images.values.shape[1]}; "
            "were they extracted by different models?"
        )
    groups = _group(images)
    values = np.array(all_rows(query.values))
    unpooled = 0
    for i, key in enumerate(zip(query.identities.tolist(), query.cameras.tolist(), strict=True)):
        if key in groups:
            values[i] = QUERY_POOLINGS[how](to_numpy(rows_of(images.values, groups[key])))
        else:
            unpooled += 1
    return PooledQueries(dataclasses.replace(query, values=values), unpooled)


def own_camera_images(query: Features, gallery: Features) -> Features:
    """Collect the images to pool for datasets that do not provide any.

    Args:
        query: Query features with identities and cameras.
        gallery: Gallery features with identities and cameras.

    Returns:
        The queries, and the gallery images of a query's identity by its camera, which are junk for that query.
    """
    keys = set(zip(query.identities.tolist(), query.cameras.tolist(), strict=True))
    groups = [indices for key, indices in _group(gallery).items() if key in keys]
    found = np.sort(np.concatenate(groups)) if groups else np.empty(0, dtype=np.int64)
    return Features(
        np.concatenate([all_rows(query.values), to_numpy(rows_of(gallery.values, found))]),
        np.concatenate([query.identities, gallery.identities[found]]),
        np.concatenate([query.cameras, gallery.cameras[found]]),
    )


def _group(images: Features) -> dict[tuple[int, int], np.ndarray]:
    """Map (identity, camera) to the ascending indices of the images."""
    order = np.lexsort((images.cameras, images.identities))
    keys = np.stack([images.identities[order], images.cameras[order]], axis=1)
    starts = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
    groups = np.split(order, starts) if len(order) else []
    return {(int(images.identities[g[0]]), int(images.cameras[g[0]])): g for g in groups}
