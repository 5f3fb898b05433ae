"""Retrieval accuracy by pair of query camera and gallery camera."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import rank_matches
from reid.records import JUNK, Features


@dataclass(frozen=True)
class CameraPairs:
    """Scores for A query cameras and B gallery cameras.

    Attributes:
        query_cameras: (A,) int64, ascending.
        gallery_cameras: (B,) int64, ascending.
        rank1: (A, B) float64 in [0, 1]; NaN where there is no valid query.
        mAP: (A, B) float64 in [0, 1]; NaN where there is no valid query.
        queries: (A, B) int64 number of valid queries; 0 for a camera against itself.
        left_out: (A, B) int64 number of queries without a true match; 0 for a camera against itself.
        images: (B,) int64 number of gallery images by camera.
    """

    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    rank1: np.ndarray
    mAP: np.ndarray
    queries: np.ndarray
    left_out: np.ndarray
    images: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values.

        Returns:
            Nested lists by name, with None for NaN.
        """
        plain: dict[str, Any] = {field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)}
        for name in ("rank1", "mAP"):
            plain[name] = [[None if np.isnan(value) else value for value in row] for row in plain[name]]
        return plain


def score_camera_pairs(query: Features, gallery: Features) -> CameraPairs:
    """Compute rank-1 and mAP for each query camera a and gallery camera b, a != b.

    The gallery of a cell holds the images from camera b without junk; distractors remain and are wrong results. As a
    differs from b, no image is excluded for having been taken by the query's own camera. A query without an image of
    its identity from camera b is left out of that cell and counted. Distances, ties and AP (rectangle form) are
    those of `reid.ranking.rank_matches`.

    Args:
        query: Features with identities and cameras.
        gallery: Features with identities and cameras.

    Returns:
        The scores of all cells.
    """
    query_cameras = np.unique(query.cameras)
    kept = gallery.identities != JUNK
    gallery_cameras = np.unique(gallery.cameras[kept])
    shape = (len(query_cameras), len(gallery_cameras))
    rank1, mean_ap = np.full(shape, np.nan), np.full(shape, np.nan)
    queries, left_out = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    images = np.zeros(len(gallery_cameras), dtype=np.int64)
    for b, camera in enumerate(gallery_cameras):
        cell_gallery = _rows(gallery, kept & (gallery.cameras == camera))
        images[b] = len(cell_gallery.values)
        findable = (query.cameras != camera) & np.isin(query.identities, cell_gallery.identities)
        if findable.any():
            cell_query = _rows(query, findable)
            ranking = rank_matches(cell_query, cell_gallery)
            first, average_precision = ranking.first_hit, ranking.average_precision
        for a, query_camera in enumerate(query_cameras):
            if query_camera == camera:
                continue
            here = query.cameras == query_camera
            queries[a, b] = np.count_nonzero(here & findable)
            left_out[a, b] = np.count_nonzero(here & ~findable)
            if queries[a, b]:
                chosen = cell_query.cameras == query_camera
                rank1[a, b] = np.mean(first[chosen] == 1)
                mean_ap[a, b] = np.mean(average_precision[chosen])
    return CameraPairs(query_cameras, gallery_cameras, rank1, mean_ap, queries, left_out, images)


def _rows(features: Features, chosen: np.ndarray) -> Features:
    """The rows where the (N,) bool mask `chosen` is set, without paths."""
    return Features(features.values[chosen], features.identities[chosen], features.cameras[chosen])
