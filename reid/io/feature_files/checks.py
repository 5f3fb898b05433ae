"""What arrays must be to serve as features and as labels, each mistake told in one line with the file's name."""

from __future__ import annotations

import numpy as np

from reid.errors import InputError
from reid.records import Features

MAX_IN_MEMORY = 256 * 2**20


def make_features(
    values: np.ndarray,
    source: str,
    *,
    identities: tuple[np.ndarray, str],
    cameras: tuple[np.ndarray, str],
    paths: tuple[str, ...] = (),
) -> Features:
    """`Features` of an (N, D) array. source: where it comes from; the labels come each with its own source."""
    matrix = check_matrix(values, source)
    people = check_labels(identities[0], len(matrix), f"identities in {identities[1]}")
    places = check_labels(cameras[0], len(matrix), f"cameras in {cameras[1]}")
    try:
        return Features(matrix, people, places, paths)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def check_matrix(values: np.ndarray, source: str) -> np.ndarray:
    """`values`, found to be a floating matrix."""
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        guess = "; are these identities or cameras?" if np.issubdtype(values.dtype, np.integer) else ""
        raise InputError(
            f"{source}: features are a floating (N, D) array, this is {values.dtype} {values.shape}{guess}"
        )
    return values


def check_labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
    """(N,), (N, 1) or (1, N) whole numbers of any type -> (N,) int64, one for each of `count` feature rows."""
    shape = labels.shape
    if labels.ndim == 2 and min(shape) > 1:
        raise InputError(f"{what}: one whole number an image is wanted, this is {labels.dtype} {shape}: features?")
    if labels.ndim not in (1, 2) or not np.issubdtype(labels.dtype, np.number):
        raise InputError(f"{what}: one whole number an image is wanted, this is {labels.dtype} {shape}")
    flat = labels.reshape(-1)
    if len(flat) != count:
        raise InputError(f"{what}: {len(flat)} labels for {count} feature rows")
    with np.errstate(invalid="ignore"):
        whole = flat.astype(np.int64)
    wrong = np.flatnonzero(whole != flat)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{what}: label {row} is {flat[row]}, no whole number; are these features?")
    return whole


def check_pair(query: Features, gallery: Features, source: str) -> None:
    """Raise InputError for an empty side and for widths that differ."""
    for name, part in (("query", query), ("gallery", gallery)):
        if len(part.values) == 0:
            raise InputError(f"{source}: the {name} holds no feature row")
    widths = query.values.shape[1], gallery.values.shape[1]
    if widths[0] != widths[1]:
        raise InputError(
            f"{source}: query features have {widths[0]} dimensions, gallery features {widths[1]}; "
            "were they extracted by different models?"
        )
