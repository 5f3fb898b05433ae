"""Checks of arrays that are to be features or labels; every error names the file in one line."""

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
    """Build `Features` from arrays of a file.

    Args:
        values: (N, D) floating-point features.
        source: Origin of `values` in error messages.
        identities: N labels, and their origin in error messages.
        cameras: N labels, and their origin in error messages.
        paths: N image paths, or empty where unknown.

    Returns:
        The features with int64 labels.

    Raises:
        InputError: If an array has the wrong shape, type or length, or features are not finite.
    """
    matrix = check_matrix(values, source)
    identity_labels = check_labels(identities[0], len(matrix), f"identities in {identities[1]}")
    camera_labels = check_labels(cameras[0], len(matrix), f"cameras in {cameras[1]}")
    try:
        return Features(matrix, identity_labels, camera_labels, paths)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def check_matrix(values: np.ndarray, source: str) -> np.ndarray:
    """Check that an array is a matrix of features.

    Args:
        values: Array of any shape and dtype.
        source: Its origin in error messages.

    Returns:
        `values`, unchanged; `Features` converts the byte order.

    Raises:
        InputError: If it is not a floating-point matrix.
    """
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        guess = "; are these identities or cameras?" if np.issubdtype(values.dtype, np.integer) else ""
        raise InputError(
            f"{source}: features must be a floating-point (N, D) array, not {values.dtype} {values.shape}{guess}"
        )
    return values


def check_labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
    """Check identities or cameras and convert them to integers.

    Args:
        labels: (N,), (N, 1) or (1, N) whole numbers of any numeric type.
        count: Number of feature rows, which must be N.
        what: What and where the labels are, in error messages.

    Returns:
        (N,) int64 labels.

    Raises:
        InputError: If the array has a different shape or length, or holds anything but whole numbers.
    """
    shape = labels.shape
    if labels.ndim == 2 and min(shape) > 1:
        raise InputError(f"{what}: must be one whole number per image, not {labels.dtype} {shape}; are these features?")
    real = np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)
    if labels.ndim not in (1, 2) or not real:
        raise InputError(f"{what}: must be one whole number per image, not {labels.dtype} {shape}")
    flat = labels.reshape(-1)
    if len(flat) != count:
        raise InputError(f"{what}: {len(flat)} labels for {count} feature rows")
    with np.errstate(invalid="ignore"):
        whole = flat.astype(np.int64)
    wrong = np.flatnonzero(whole != flat)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{what}: label {row} is {flat[row]}, not a whole number; are these features?")
    return whole


def check_pair(query: Features, gallery: Features, source: str) -> None:
    """Check that query and gallery are not empty and have the same number of dimensions.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        source: Their origin in error messages.

    Raises:
        InputError: If one is empty or the dimensions differ.
    """
    for name, split in (("query", query), ("gallery", gallery)):
        if len(split.values) == 0:
            raise InputError(f"{source}: the {name} has no feature rows")
    widths = query.values.shape[1], gallery.values.shape[1]
    if widths[0] != widths[1]:
        raise InputError(
            f"{source}: query features have {widths[0]} dimensions, gallery features {widths[1]}; "
            "were they extracted by different models?"
        )
