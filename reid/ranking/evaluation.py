"""Exact retrieval evaluation after the Market-1501 protocol (Zheng et al. 2015), counting instead of sorting.

Exact: the ranking of the squared distances of the given features in float64, summed in a fixed order, equal ones by
gallery index. Neither the block size nor the number of threads nor the device changes it.

Gallery images of a query's identity by another camera are its true matches. Those by the query's own camera, and all
images of identity -1, are junk: removed without rank cost. The rest, distractors of identity 0 too, are wrong answers.
"""

from __future__ import annotations

import warnings

import numpy as np

from reid.errors import InputError
from reid.ranking.metrics import Ranking
from reid.ranking.nearer import LeaveOut, count_nearer
from reid.records import DISTRACTOR, JUNK, Features, Scores


def evaluate(
    query: Features,
    gallery: Features,
    *,
    metric: str = "euclidean",
    max_rank: int = 50,
    block: int = 1024,
    first_pass: str = "auto",
) -> Scores:
    """CMC, mAP (rectangle and trapezoid) and mINP of ranking the gallery for every query.

    The values may be arrays, memory maps, `reid.shards.Shards` or tensors of one device; the gallery is read tile by
    tile. metric: `euclidean`, or `cosine`: Euclidean between rows divided by their float64 length. max_rank: length of
    the CMC curve, cut to the gallery's size. block: queries compared at once. first_pass: "float32" or "integers", see
    `reid.ranking.first_pass`; "auto" takes the quicker one, and the result is the same.
    Queries without a true match are left out of every mean but that of mAP_trapezoid, where they count as 0; a warning
    tells their number.
    Raises InputError for an empty side, widths that differ, a query of identity 0 or -1, rows with NaN or infinity, and
    where no query is left (telling which rule removed them).
    """
    if max_rank < 1:
        raise InputError(f"the CMC curve needs max_rank >= 1, not {max_rank}")
    ranking = rank_matches(query, gallery, metric=metric, block=block, first_pass=first_pass)
    dropped = int((~ranking.valid).sum())
    if dropped:
        warnings.warn(
            f"{dropped} of {len(ranking.valid)} queries have no true match in the gallery: left out of CMC, mAP and "
            "mINP, counted as 0 in mAP_trapezoid",
            stacklevel=2,
        )
    return ranking.scores(max_rank)


def rank_matches(
    query: Features, gallery: Features, *, metric: str = "euclidean", block: int = 1024, first_pass: str = "auto"
) -> Ranking:
    """The ranks of every query's true matches; arguments and errors as in `evaluate`."""
    check_labels(query, gallery)
    places = _places_by_identity(gallery.identities)
    pairs = zip(query.identities.tolist(), query.cameras.tolist(), strict=True)
    matches = [_divide(places.get(identity, _NOWHERE), camera, gallery.cameras)[0] for identity, camera in pairs]
    offsets = np.concatenate([[0], np.cumsum([len(found) for found in matches])]).astype(np.int64)
    if offsets[-1] == 0:
        raise InputError(_why_nothing_is_left(query, gallery))
    found = count_nearer(
        query.values,
        gallery.values,
        offsets,
        np.concatenate(matches),
        leave_out=same_identity(query.identities, gallery.identities),
        keep=gallery.identities != JUNK,
        metric=metric,
        block=block,
        first_pass=first_pass,
    )
    ranks = np.empty(offsets[-1], dtype=np.int64)
    # The wrong answers nearer than a match, and the matches before it.
    ranks[np.repeat(offsets[:-1], np.diff(offsets)) + found.order] = found.counts + found.order + 1
    return Ranking(ranks, offsets, len(gallery.identities), found.work)


def same_identity(query_identities: np.ndarray, gallery_identities: np.ndarray) -> LeaveOut:
    """All pairs of one identity: the true matches, which rank among themselves, and those by the query's own camera."""

    def pairs(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        here = gallery_identities[first : first + rows]
        by_identity = np.argsort(here, kind="stable")
        wanted = query_identities[first_query : first_query + queries]
        start, end = (np.searchsorted(here, wanted, side=s, sorter=by_identity) for s in ("left", "right"))
        number = end - start
        query = np.repeat(np.arange(queries), number)
        return query, by_identity[np.arange(len(query)) - np.repeat(np.cumsum(number) - number, number) + start[query]]

    return pairs


def matches_and_junk(
    query_identity: int, query_camera: int, gallery_identities: np.ndarray, gallery_cameras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The gallery indices that are true matches of one query, and those that are junk for it; int64, ascending.

    gallery_identities, gallery_cameras: (G,) integers. Whatever is in neither is a wrong answer.
    """
    same_identity = np.flatnonzero(gallery_identities == query_identity)
    matches, same_camera = _divide(same_identity, query_camera, gallery_cameras)
    return matches, np.union1d(same_camera, np.flatnonzero(gallery_identities == JUNK))


_NOWHERE = np.empty(0, dtype=np.int64)


def _divide(same_identity: np.ndarray, camera: int, gallery_cameras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gallery indices of the query's identity -> those by other cameras (true matches), those by its own (junk)."""
    own = gallery_cameras[same_identity] == camera
    return same_identity[~own], same_identity[own]


def _places_by_identity(identities: np.ndarray) -> dict[int, np.ndarray]:
    """Identity -> its indices, ascending."""
    by_identity = np.argsort(identities, kind="stable")
    present, first = np.unique(identities[by_identity], return_index=True)
    return dict(zip(present.tolist(), np.split(by_identity, first[1:]), strict=True))


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
