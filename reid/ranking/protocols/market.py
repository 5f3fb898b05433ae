"""True matches and junk under the Market-1501 protocol (Zheng et al. 2015), as gallery indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.records import DISTRACTOR, JUNK, Features

_EMPTY = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class GroundTruth:
    """Gallery indices of true matches and junk, int64 and ascending.

    Attributes:
        matches: One array per query: images of its identity by other cameras, which are to be found.
        same_camera: One array per query: images of its identity from its own camera, which are junk.
        unlabeled: Images of identity -1, which are junk for every query.
    """

    matches: tuple[np.ndarray, ...]
    same_camera: tuple[np.ndarray, ...]
    unlabeled: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(Q,) int64 numbers of true matches."""
        return np.array([len(matches) for matches in self.matches], dtype=np.int64)


def market_ground_truth(query: Features, gallery: Features) -> GroundTruth:
    """Find the true matches and the junk of every query.

    Args:
        query: Queries; only their labels are read.
        gallery: Gallery features with identities and cameras.

    Returns:
        Gallery indices of the matches and of the junk, per query.

    Raises:
        InputError: If a side is empty, a query has identity 0 or -1, or no query has a true match; the message names
            the rule that removed them.
    """
    _check_labels(query, gallery)
    by_identity = np.argsort(gallery.identities, kind="stable")
    present, first = np.unique(gallery.identities[by_identity], return_index=True)
    indices = dict(zip(present.tolist(), np.split(by_identity, first[1:]), strict=True))
    matches, same_camera = [], []
    for identity, camera in zip(query.identities.tolist(), query.cameras.tolist(), strict=True):
        images = indices.get(identity, _EMPTY)
        own = gallery.cameras[images] == camera
        matches.append(images[~own])
        same_camera.append(images[own])
    if not any(map(len, matches)):
        raise InputError(_no_match_message(query, gallery))
    return GroundTruth(tuple(matches), tuple(same_camera), indices.get(JUNK, _EMPTY))


def matches_and_junk(
    query_identity: int, query_camera: int, gallery_identities: np.ndarray, gallery_cameras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the true matches and the junk of one query.

    Args:
        query_identity: Identity of the query.
        query_camera: Camera of the query.
        gallery_identities: (G,) integers.
        gallery_cameras: (G,) integers.

    Returns:
        int64 gallery indices of the true matches and of the junk, ascending; all others are wrong results.
    """
    same_identity = np.flatnonzero(gallery_identities == query_identity)
    own = gallery_cameras[same_identity] == query_camera
    return same_identity[~own], np.union1d(same_identity[own], np.flatnonzero(gallery_identities == JUNK))


def _check_labels(query: Features, gallery: Features) -> None:
    for name, features in (("query", query), ("gallery", gallery)):
        if len(features.identities) == 0:
            raise InputError(f"the {name} holds no feature row")
    unlabeled = np.flatnonzero(query.identities <= DISTRACTOR)
    if len(unlabeled):
        row = int(unlabeled[0])
        name = f" ({query.paths[row]})" if query.paths else ""
        raise InputError(
            f"query row {row}{name} has identity {query.identities[row]}: junk and distractors cannot be queries "
            f"({len(unlabeled)} of {len(query.identities)} query rows are affected); remove them"
        )


def _no_match_message(query: Features, gallery: Features) -> str:
    """Explain which rule removed the true matches of every query."""
    present = np.isin(query.identities, gallery.identities)
    start = f"0 of {len(present)} queries have a true match in the gallery of {len(gallery.identities)} images: "
    if not present.any():
        return start + (
            f"no query identity (such as {query.identities[0]}) is in the gallery (which has identities such as "
            f"{gallery.identities[0]}); do both belong to the same dataset?"
        )
    cameras = np.union1d(query.cameras, gallery.cameras)
    if len(cameras) == 1:
        return start + (
            f"all images are from camera {cameras[0]}, and images of the query's identity from the query's own camera "
            "are junk; set the camera numbers of the images"
        )
    return start + (
        f"{int(present.sum())} have images of their identity only from their own camera, which are junk, and "
        f"{int((~present).sum())} have no image of their identity; are the camera numbers correct?"
    )
