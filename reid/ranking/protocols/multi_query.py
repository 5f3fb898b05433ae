"""Multi-query (Zheng et al. 2015): a query is described by all images of its person under its camera."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError, unknown_name
from reid.ranking.arrays import all_rows, host, rows_of
from reid.records import Features

POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda rows: rows.mean(axis=0, dtype=np.float64),
    "max": lambda rows: rows.max(axis=0),
}


@dataclass(frozen=True)
class PooledQueries:
    """query: the queries with pooled descriptors. alone: how many had no image to pool and stayed as they were."""

    query: Features
    alone: int


def pool_queries(query: Features, images: Features, how: str = "mean") -> PooledQueries:
    """Give each query the mean or maximum, per dimension, of the images of its identity under its camera.

    images: the images to pool, such as the hand-drawn boxes of Market-1501 (`gt_bbox`, which hold the query's too) or
    `own_camera_images`. The descriptors are pooled as they are: for unit rows divide by the length before, after, or
    both. The result has the type of the query's values. Raises InputError for an unknown `how` and differing widths.
    """
    if how not in POOLINGS:
        raise unknown_name("pooling of queries", how, tuple(POOLINGS))
    if query.values.shape[1] != images.values.shape[1]:
        raise InputError(
            f"queries have {query.values.shape[1]} dimensions and the images to pool {images.values.shape[1]}; "
            "were they extracted by different models?"
        )
    places = _places(images)
    values = np.array(all_rows(query.values))
    alone = 0
    for i, key in enumerate(zip(query.identities.tolist(), query.cameras.tolist(), strict=True)):
        if key in places:
            values[i] = POOLINGS[how](host(rows_of(images.values, places[key])))
        else:
            alone += 1
    return PooledQueries(dataclasses.replace(query, values=values), alone)


def own_camera_images(query: Features, gallery: Features) -> Features:
    """The queries, and the gallery images that show the person of a query under its camera (junk for that query).

    What there is to pool where a dataset brings no images of its own for it.
    """
    wanted = set(zip(query.identities.tolist(), query.cameras.tolist(), strict=True))
    places = [place for key, place in _places(gallery).items() if key in wanted]
    found = np.sort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)
    return Features(
        np.concatenate([all_rows(query.values), host(rows_of(gallery.values, found))]),
        np.concatenate([query.identities, gallery.identities[found]]),
        np.concatenate([query.cameras, gallery.cameras[found]]),
    )


def _places(images: Features) -> dict[tuple[int, int], np.ndarray]:
    """(identity, camera) -> the images' indices, ascending."""
    order = np.lexsort((images.cameras, images.identities))
    keys = np.stack([images.identities[order], images.cameras[order]], axis=1)
    starts = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
    groups = np.split(order, starts) if len(order) else []
    return {(int(images.identities[g[0]]), int(images.cameras[g[0]])): g for g in groups}
