"""Accuracy from one camera to another: which views are hard to match."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import rank_matches
from reid.records import JUNK, Features


@dataclass(frozen=True)
class CameraPairs:
    """Scores of A query cameras against B gallery cameras.

    query_cameras: (A,) and gallery_cameras: (B,) int64, ascending. rank1, mAP: (A, B) float64 in [0, 1]; NaN where no
    query counts, as for a camera against itself. queries, left_out: (A, B) int64, queries that count and queries
    without a true match there; both 0 for a camera against itself. images: (B,) int64, gallery images by each camera.
    """

    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    rank1: np.ndarray
    mAP: np.ndarray
    queries: np.ndarray
    left_out: np.ndarray
    images: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Plain lists, None for NaN."""
        found: dict[str, Any] = {field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)}
        for name in ("rank1", "mAP"):
            found[name] = [[None if np.isnan(value) else value for value in row] for row in found[name]]
        return found


def camera_pairs(query: Features, gallery: Features) -> CameraPairs:
    """Rank-1 and mAP of the queries by camera a when the gallery holds the images by camera b alone, for all a != b.

    The gallery of a cell: all images by camera b but those of identity -1 (junk). Distractors (identity 0) stay and
    are wrong answers. As a != b, no image is junk for having been taken by the query's own camera; a cell with a = b
    would hold no true match at all and is empty. A query without an image of its identity by camera b is left out of
    that cell and counted. Distances, ties and AP (rectangle form) are those of `reid.ranking.rank_matches`.
    """
    query_cameras = np.unique(query.cameras)
    kept = gallery.identities != JUNK
    gallery_cameras = np.unique(gallery.cameras[kept])
    shape = (len(query_cameras), len(gallery_cameras))
    rank1, mean_ap = np.full(shape, np.nan), np.full(shape, np.nan)
    queries, left_out = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    images = np.zeros(len(gallery_cameras), dtype=np.int64)
    for b, camera in enumerate(gallery_cameras):
        answers = _rows(gallery, kept & (gallery.cameras == camera))
        images[b] = len(answers.values)
        findable = (query.cameras != camera) & np.isin(query.identities, answers.identities)
        if findable.any():
            asked = _rows(query, findable)
            ranking = rank_matches(asked, answers)
            first, average_precision = ranking.first_hit, ranking.average_precision
        for a, own in enumerate(query_cameras):
            if own == camera:
                continue
            here = query.cameras == own
            queries[a, b] = np.count_nonzero(here & findable)
            left_out[a, b] = np.count_nonzero(here & ~findable)
            if queries[a, b]:
                chosen = asked.cameras == own
                rank1[a, b] = np.mean(first[chosen] == 1)
                mean_ap[a, b] = np.mean(average_precision[chosen])
    return CameraPairs(query_cameras, gallery_cameras, rank1, mean_ap, queries, left_out, images)


def _rows(features: Features, chosen: np.ndarray) -> Features:
    """Some rows, by a (N,) bool, without their paths."""
    return Features(features.values[chosen], features.identities[chosen], features.cameras[chosen])
