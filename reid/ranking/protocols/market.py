"""Who is a true match, who is junk: the Market-1501 protocol (Zheng et al. 2015) as gallery indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.records import DISTRACTOR, JUNK, Features

_NOWHERE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Protocol:
    """Gallery indices, int64 and ascending.

    matches, same_camera: one array a query: images of its identity by other cameras (to be found) and by its own
    (junk). unlabeled: images of identity -1, junk for every query.
    """

    matches: tuple[np.ndarray, ...]
    same_camera: tuple[np.ndarray, ...]
    unlabeled: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(Q,) int64: true matches of each query."""
        return np.array([len(matches) for matches in self.matches], dtype=np.int64)


def divide(query: Features, gallery: Features) -> Protocol:
    """The protocol of every query.

    Raises InputError for an empty side, a query of identity 0 or -1, and where no query has a true match, telling which
    rule removed them.
    """
    check_labels(query, gallery)
    by_identity = np.argsort(gallery.identities, kind="stable")
    present, first = np.unique(gallery.identities[by_identity], return_index=True)
    places = dict(zip(present.tolist(), np.split(by_identity, first[1:]), strict=True))
    matches, same_camera = [], []
    for identity, camera in zip(query.identities.tolist(), query.cameras.tolist(), strict=True):
        images = places.get(identity, _NOWHERE)
        own = gallery.cameras[images] == camera
        matches.append(images[~own])
        same_camera.append(images[own])
    if not any(map(len, matches)):
        raise InputError(_why_nothing_is_left(query, gallery))
    return Protocol(tuple(matches), tuple(same_camera), places.get(JUNK, _NOWHERE))


def matches_and_junk(
    query_identity: int, query_camera: int, gallery_identities: np.ndarray, gallery_cameras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The gallery indices that are true matches of one query, and those that are junk for it; int64, ascending.

    gallery_identities, gallery_cameras: (G,) integers. Whatever is in neither is a wrong answer.
    """
    same_identity = np.flatnonzero(gallery_identities == query_identity)
    own = gallery_cameras[same_identity] == query_camera
    return same_identity[~own], np.union1d(same_identity[own], np.flatnonzero(gallery_identities == JUNK))


def check_labels(query: Features, gallery: Features) -> None:
    """Raise InputError for an empty side and for queries that are nobody."""
    for name, features in (("query", query), ("gallery", gallery)):
        if len(features.identities) == 0:
            raise InputError(f"the {name} holds no feature row")
    nobody = np.flatnonzero(query.identities <= DISTRACTOR)
    if len(nobody):
        row = int(nobody[0])
        name = f" ({query.paths[row]})" if query.paths else ""
        raise InputError(
            f"query row {row}{name} has identity {query.identities[row]}: junk and distractors cannot be searched for, "
            f"{len(nobody)} of {len(query.identities)} query rows are affected; leave them out"
        )


def _why_nothing_is_left(query: Features, gallery: Features) -> str:
    """Which rule took the true matches away from every query."""
    present = np.isin(query.identities, gallery.identities)
    start = f"none of the {len(present)} queries has a true match in the gallery of {len(gallery.identities)} images: "
    if not present.any():
        return start + (
            f"no identity of the query (such as {query.identities[0]}) is in the gallery (which has such as "
            f"{gallery.identities[0]}); do both belong to one dataset?"
        )
    cameras = np.union1d(query.cameras, gallery.cameras)
    if len(cameras) == 1:
        return start + (
            f"all images are from camera {cameras[0]}, and images of the query's identity by the query's own camera "
            "are junk, so nothing is left to find; give the images the numbers of their cameras"
        )
    return start + (
        f"{int(present.sum())} have images of their identity only by their own camera, which are junk, and "
        f"{int((~present).sum())} have none at all; are the camera numbers right?"
    )
